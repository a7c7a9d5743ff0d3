// @ts-check
/**
 * The events of one reply, read with fetch (EventSource can only GET from the start and cannot be aborted
 * cleanly). A lost connection is taken up again at the cursor, so each event arrives exactly once. Knows
 * nothing of what the events mean, but that "done" and "error" are the last.
 */

import { ApiError, early } from "./api.js";

/** The server sends a heartbeat every 5 s; this long without a byte means that the connection is dead. */
const SILENCE_MS = 20_000;
const BACKOFF_MS = [100, 250, 500, 1000, 2000, 4000];

/**
 * Split a stream of text into server-sent events; half a line waits for its rest.
 * @param {string} buffer
 * @returns {{events: {index: number, type: string, data: any}[], rest: string}}
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
    if (fields.data) events.push({ index: Number(fields.id), type: fields.event, data: JSON.parse(fields.data) });
  }
  return { events, rest };
}

/**
 * One connection: the events that come at `path`, in batches, until the server ends the answer.
 * @param {string} path
 * @param {AbortSignal} signal
 */
export async function* eventsAt(path, signal) {
  const response = await (early(path) || fetch(path, { signal, cache: "no-store" }));
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

/**
 * Yield the events of a reply from `cursor` on, in batches as they arrive, through any number of lost
 * connections. Throws ApiError when the server no longer knows the reply (404, 410) and AbortError when
 * `signal` aborts.
 * @param {string} replyId
 * @param {number} cursor
 * @param {AbortSignal} signal
 * @param {(connected: boolean) => void} [onConnection]
 */
export async function* replyEvents(replyId, cursor, signal, onConnection = () => {}) {
  let failures = 0;
  while (!signal.aborted) {
    const silence = new AbortController();
    let heard = performance.now();
    const timer = setInterval(() => performance.now() - heard > SILENCE_MS && silence.abort(), SILENCE_MS / 4);
    try {
      const path = `/api/replies/${replyId}/events?from=${cursor}`;
      for await (const events of eventsAt(path, AbortSignal.any([signal, silence.signal]))) {
        heard = performance.now();
        if (failures) onConnection(true);
        failures = 0;
        const fresh = events.filter((event) => event.index >= cursor);
        if (!fresh.length) continue;
        cursor = fresh[fresh.length - 1].index + 1;
        yield fresh;
        if (fresh.some((event) => event.type === "done" || event.type === "error")) return;
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
