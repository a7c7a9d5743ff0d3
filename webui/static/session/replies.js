// @ts-check
/**
 * Watches the running replies of the session on screen: reads their events into the state's `live` map and
 * hands finished messages to the room. A hidden tab lets go of its streams and takes them up at the cursor
 * when it is seen again, for a reply is the server's job and the page only looks on.
 * @import { Live, Running } from "../types.js"
 * @import { Store } from "./store.js"
 */

import { ApiError, post } from "../server/api.js";
import { replyEvents } from "../server/stream.js";

/**
 * @param {Store} store
 * @param {{progress: (live: Live) => void, started: (live: Live) => void,
 *   held: (live: Live, data: any) => void, finished: (live: Live, data: any) => void,
 *   failed: (live: Live, data: any) => void, lost: (sessionId: string) => void,
 *   connection: (connected: boolean) => void}} room
 */
export function createReplies(store, room) {
  /** @type {Map<string, {live: Live, cursor: number}>} by reply id */
  const watched = new Map();
  /** @type {AbortController | null} */
  let reading = null;
  let isToBegin = false;

  /** @param {Running} running @param {string} sessionId @returns {Live} */
  function newLive(running, sessionId) {
    const bot = store.state.bots.find((other) => other.id === running.bot);
    return {
      replyId: running.reply_id,
      messageId: running.message_id,
      sessionId,
      bot: running.bot || "",
      name: bot ? bot.name : "",
      parent: null,
      base: "",
      for: null,
      text: "",
      think: "",
      thinkSeconds: 0,
      thinkTokens: 0,
      started: Date.now() / 1000,
      ready: false,
      stopping: false,
      held: false,
      progress: null,
      stats: null,
    };
  }

  /** @param {Live} live @param {{type: string, data: any}} event */
  function apply(live, { type, data }) {
    if (type === "start") {
      Object.assign(live, {
        bot: data.bot,
        name: data.name,
        parent: data.parent ?? null,
        ready: true,
        base: data.continues ? data.text : "",
        for: data.for,
      });
      room.started(live);
    } else if (type === "held") {
      live.held = true;
      room.held(live, data);
    } else if (type === "progress") live.progress = data;
    else if (type === "stats") live.stats = data;
    else if (type === "think") live.think += data.text;
    else if (type === "thought")
      Object.assign(live, { thinkSeconds: data.thinking_seconds, thinkTokens: data.thinking_tokens });
    else if (type === "text") live.text += data.text;
  }

  /** Read what is watched, all of it in one connection; what was read before goes on at its cursors. */
  async function read() {
    reading?.abort();
    reading = null;
    if (document.hidden || !watched.size) return;
    const { signal } = (reading = new AbortController());
    const cursors = new Map([...watched].map(([replyId, { cursor }]) => [replyId, cursor]));
    try {
      for await (const events of replyEvents(cursors, signal, room.connection)) {
        /** @type {Set<Live>} */
        const grown = new Set();
        for (const event of events) {
          const entry = watched.get(event.reply);
          if (!entry || signal.aborted) continue;
          const { live } = entry;
          entry.cursor = event.index + 1;
          if (["done", "error", "gone"].includes(event.type)) {
            forget(live);
            grown.delete(live);
            end(live, event);
          } else {
            apply(live, event);
            grown.add(live);
          }
        }
        for (const live of grown) room.progress(live);
      }
    } catch (error) {
      if (signal.aborted) return;
      const lives = [...watched.values()].filter(({ live }) => cursors.has(live.replyId));
      for (const { live } of lives) forget(live);
      if (!(error instanceof ApiError)) throw error;
      for (const { live } of lives) room.lost(live.sessionId);
    }
  }

  /** @param {Live} live @param {{type: string, data: any}} event */
  function end(live, { type, data }) {
    if (type === "done") room.finished(live, data);
    else if (type === "error") room.failed(live, data);
    else room.lost(live.sessionId);
  }

  /** @param {Live} live */
  function forget(live) {
    watched.delete(live.replyId);
    store.state.live.delete(live.messageId);
  }

  document.addEventListener("visibilitychange", () => {
    read();
  });

  return {
    /** Follow a reply, unless it is followed already. @param {Running} running @param {string} sessionId */
    watch(running, sessionId) {
      if (watched.has(running.reply_id)) return;
      const live = newLive(running, sessionId);
      watched.set(running.reply_id, { live, cursor: 0 });
      store.state.live.set(live.messageId, live);
      store.touch("live");
      if (isToBegin) return;
      isToBegin = true; // with all that are watched in this moment
      queueMicrotask(() => {
        isToBegin = false;
        read();
      });
    },

    /** Look away from every reply (another session is shown); they go on by themselves. */
    leave() {
      reading?.abort();
      for (const { live } of watched.values()) store.state.live.delete(live.messageId);
      watched.clear();
      store.touch("live");
    },

    /** Have the thought of a reply end, unless it has just ended. @param {Live} live */
    async answerNow(live) {
      await post(`/api/replies/${live.replyId}/answer`).catch((error) => {
        if (![400, 404, 410].includes(error.status)) throw error;
      });
    },

    /** End one of the replies that are written side by side. @param {Live} live */
    async stopOne(live) {
      live.stopping = true;
      store.touch("live");
      await post(`/api/replies/${live.replyId}/stop`, { alone: true }).catch((error) => {
        if (error.status !== 404 && error.status !== 410) throw error;
      });
    },

    /** End every running reply of the session, and with it the chain of turns. */
    async stop() {
      for (const { live } of watched.values()) live.stopping = true;
      store.touch("live");
      await Promise.all(
        [...watched.keys()].map((replyId) =>
          post(`/api/replies/${replyId}/stop`).catch((error) => {
            if (error.status !== 404 && error.status !== 410) throw error;
          }),
        ),
      );
    },
  };
}
