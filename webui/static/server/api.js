// @ts-check
/**
 * Requests to the server: JSON in, JSON out, errors as ApiError. Knows the rules of HTTP here, not what the
 * answers mean. A server that cannot be reached is an ApiError with status 0.
 */

import { t } from "../base/language.js";

/** Browsers let at most 64 KiB outlive a page. */
const MAX_KEPT_ALIVE = 20_000;

export class ApiError extends Error {
  /** @param {number} status @param {any} body */
  constructor(status, body) {
    const error = (body && body.error) || {};
    super(typeof error === "string" ? error : error.message || t("The server answered with status {status}.", { status }));
    this.status = status;
    this.code = error.code || "";
    this.hint = error.hint || "";
    this.session = (body && (body.session || error.session)) || null;
    this.body = body;
  }
}

/** What early.js asked for before there were modules, by path. @type {Map<string, Promise<Response>>} */
const asked = /** @type {any} */ (window).asked || new Map();

/** Its answer; each is taken once. @param {string} path */
export function early(path) {
  const answer = asked.get(path);
  asked.delete(path);
  return answer;
}

/**
 * Called with the outcome of each request: true if the server answered at all.
 * @type {(reached: boolean) => void}
 */
let onReached = () => {};
/** Called when the server asks for a password. @type {() => void} */
let onLogin = () => {};

/** @param {{reached: (reached: boolean) => void, login: () => void}} listeners */
export function listen(listeners) {
  onReached = listeners.reached;
  onLogin = listeners.login;
}

/**
 * @param {string} method
 * @param {string} path
 * @param {any} [body]
 * @param {Record<string, string>} [headers]
 * @param {AbortSignal} [signal] closes the connection: nobody waits for the answer any more
 * @returns {Promise<any>}
 */
export async function request(method, path, body, headers = {}, signal = undefined) {
  let response, answer;
  const text = body === undefined ? undefined : JSON.stringify(body);
  try {
    response =
      (method === "GET" && (await early(path))) ||
      (await fetch(path, {
        method,
        headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
        body: text,
        cache: "no-store",
        signal,
        keepalive: method === "PATCH" && text !== undefined && text.length < MAX_KEPT_ALIVE, // it outlives the tab
      }));
    const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
    answer = isJson ? await response.json() : null; // which may break off in the middle
  } catch {
    if (signal?.aborted) throw new ApiError(0, { error: { message: t("Nobody waits for it."), code: "aborted" } });
    onReached(false);
    throw new ApiError(0, { error: { message: t("Parlor's server does not answer."), code: "unreachable" } });
  }
  onReached(true);
  if (response.ok) return answer;
  if (response.status === 401 && path !== "/api/login") onLogin();
  throw new ApiError(response.status, answer);
}

/** @param {string} path @param {AbortSignal} [signal] */
export const get = (path, signal) => request("GET", path, undefined, {}, signal);
/** @param {string} path @param {any} [body] */
export const post = (path, body = {}) => request("POST", path, body);
/** @param {string} path @param {any} body */
export const patch = (path, body) => request("PATCH", path, body);
/** @param {string} path @param {any} body */
export const put = (path, body) => request("PUT", path, body);
/** @param {string} path @param {any} [body] */
export const remove = (path, body) => request("DELETE", path, body);
