// @ts-check
/**
 * The events of replies, read with fetch (EventSource can only GET from the start and cannot be aborted
 * cleanly). A lost connection is taken up again at the cursors, so each event arrives exactly once. Knows
 * nothing of what the events mean, but which are the last.
 *
 * @typedef {{reply: string, index: number, type: string, data: any}} Event
 */

import { ApiError, early } from "./api.js";

/** The server sends a heartbeat every 5 s; this long without a byte means that the connection is dead. */
const SILENCE_MS = 20_000;
const BACKOFF_MS = [100, 250, 500, 1000, 2000, 4000];

/**
 * Split a stream of text into server-sent events; half a line waits for its rest. An event of one of several
 * replies has that one's id before its number.
 * @param {string} buffer
 * @returns {{events: Event[], rest: string}}
 */
export function parseEvents(buffer) {
  const blocks = buffer.replaceAll("\r\n", "\n").split("\n\n");
  const rest = blocks.pop() || "";
  const events = [];
  for (const block of blocks) {
    const fields = { id: "", event: "message", data: "" };
    for (const line of block.split("\n")) {
      const at = line.indexOf(":");
      if (at <= 0) continue;
      const name = line.slice(0, at);
      const value = line.slice(at + 1).replace(/^ /, "");
      if (name === "data") fields.data += (fields.data ? "\n" : "") + value;
      else if (name in fields) fields[name] = value;
    }
    const [index, reply = ""] = fields.id.split(":").reverse();
    if (fields.data) events.push({ reply, index: Number(index), type: fields.event, data: JSON.parse(fields.data) });
  }
  return { events, rest };
}

/**
 * One connection: the events that come at `path`, in batches, until the server ends the answer.
 * @param {string} path
 * @param {AbortSignal} signal
 * @param {any} [body] what is posted there; without one it is a GET
 */
export async function* eventsAt(path, signal, body) {
  const post = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await (early(path) || fetch(path, { signal, cache: "no-store", ...post }));
  if (!response.ok || !response.body) throw new ApiError(response.status, await response.json().catch(() => null));
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  signal.addEventListener("abort", () => reader.cancel().catch(() => {})); // early.js knew no signal
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const { events, rest } = parseEvents(buffer + decoder.decode(value, { stream: true }));
    buffer = rest;
    yield events;
  }
}

/** Close what early.js asked for, if it did. @param {string} path */
const letGo = (path) => early(path)?.then((answer) => answer.body?.cancel()).catch(() => {});

/** After which a reply has no more. @param {Event} event */
const isLast = ({ type }) => type === "done" || type === "error" || type === "gone";

/**
 * Yield the events of some replies, each from its cursor on, in batches as they arrive, through any number of
 * lost connections, all in one of the few that a browser has. Throws ApiError when the server no longer knows
 * the reply (404, 410), and AbortError when `signal` aborts; where one of several is not known any more, it
 * has an event "gone".
 * @param {Map<string, number>} cursors by reply id
 * @param {AbortSignal} signal
 * @param {(connected: boolean) => void} [onConnection]
 */
export async function* replyEvents(cursors, signal, onConnection = () => {}) {
  const left = new Map(cursors);
  let failures = 0;
  while (!signal.aborted) {
    const silence = new AbortController();
    let heard = performance.now();
    const timer = setInterval(() => performance.now() - heard > SILENCE_MS && silence.abort(), SILENCE_MS / 4);
    try {
      const [[only, cursor]] = left;
      if (left.size > 1) for (const id of left.keys()) letGo(`/api/replies/${id}/events?from=0`);
      const path =
        left.size === 1
          ? `/api/replies/${only}/events?from=${cursor}`
          : `/api/replies/events?of=${[...left].map(([id, from]) => `${id}:${from}`)}`;
      for await (const events of eventsAt(path, AbortSignal.any([signal, silence.signal]))) {
        heard = performance.now();
        if (failures) onConnection(true);
        failures = 0;
        const fresh = [];
        for (const event of events) {
          event.reply ||= only;
          const from = left.get(event.reply);
          if (from === undefined || event.index < from) continue;
          fresh.push(event);
          if (isLast(event)) left.delete(event.reply);
          else left.set(event.reply, event.index + 1);
        }
        if (fresh.length) yield fresh;
        if (!left.size) return;
      }
      failures = Math.max(failures, 1);
    } catch (error) {
      if (signal.aborted) throw error;
      if (error instanceof ApiError && error.status !== 503) throw error;
      failures += 1;
      if (failures > 1) onConnection(false);
    } finally {
      clearInterval(timer);
    }
    await new Promise((resolve) => setTimeout(resolve, BACKOFF_MS[Math.min(failures - 1, BACKOFF_MS.length - 1)]));
  }
}
