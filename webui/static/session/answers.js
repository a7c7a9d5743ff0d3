// @ts-check
/**
 * Requests about the session on screen. The server is told which revision the page has whole, and answers
 * what changed since; the session is put together here, so that nobody else has to know. Knows no element.
 * @import { Delta, Session } from "../types.js"
 */

import { ApiError, request } from "../server/api.js";

export class Answers {
  /** As the server last said it. @type {Session | null} */
  #known = null;

  /** @param {string} path */
  get = (path) => this.#request("GET", path);
  /** @param {string} path @param {any} [body] */
  post = (path, body = {}) => this.#request("POST", path, body);
  /** @param {string} path @param {any} body */
  patch = (path, body) => this.#request("PATCH", path, body);
  /** @param {string} path @param {any} body */
  put = (path, body) => this.#request("PUT", path, body);
  /** @param {string} path @param {any} [body] */
  remove = (path, body) => this.#request("DELETE", path, body);

  /** The page has this session, as the server said it. @param {Session} session */
  take(session) {
    this.#known = session;
  }

  get known() {
    return this.#known;
  }

  /** @param {string} method @param {string} path @param {any} [body] */
  async #request(method, path, body) {
    const known = this.#known;
    const isAbout = known && `${path.split("?")[0]}/`.startsWith(`/api/sessions/${known.id}/`);
    try {
      const answer = await request(method, path, body, isAbout ? { "Known-Revision": `${known.revision}` } : {});
      if (known && answer?.delta) answer.session = together(known, answer.session, answer.delta);
      return answer;
    } catch (error) {
      if (known && error instanceof ApiError && error.body?.delta)
        error.session = together(known, error.body.session, error.body.delta);
      throw error;
    }
  }
}

/**
 * @param {Session} known at the revision that the delta begins with
 * @param {Session} session without its messages
 * @param {Delta} delta
 * @returns {Session}
 */
function together(known, session, delta) {
  const moved = new Set([...delta.removed, ...delta.changed.map(([, message]) => message.id)]);
  const messages = known.messages.filter((message) => !moved.has(message.id));
  for (const [index, message] of delta.changed) messages.splice(index, 0, message);
  return { ...session, messages };
}
