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
  /** @type {Map<string, {live: Live, cursor: number, abort: AbortController | null}>} by reply id */
  const watched = new Map();

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

  /** @param {string} replyId */
  async function read(replyId) {
    const entry = watched.get(replyId);
    if (!entry || entry.abort) return;
    const { live } = entry;
    entry.abort = new AbortController();
    try {
      for await (const events of replyEvents(replyId, entry.cursor, entry.abort.signal, room.connection)) {
        for (const event of events) {
          entry.cursor = event.index + 1;
          if (event.type === "done" || event.type === "error") {
            forget(live);
            (event.type === "done" ? room.finished : room.failed)(live, event.data);
            return;
          }
          apply(live, event);
        }
        room.progress(live);
      }
    } catch (error) {
      if (entry.abort?.signal.aborted) return;
      forget(live);
      if (!(error instanceof ApiError)) throw error;
      room.lost(live.sessionId);
    }
  }

  /** @param {Live} live */
  function forget(live) {
    watched.delete(live.replyId);
    store.state.live.delete(live.messageId);
  }

  document.addEventListener("visibilitychange", () => {
    for (const [replyId, entry] of watched) {
      if (document.hidden) {
        entry.abort?.abort();
        entry.abort = null;
      } else read(replyId);
    }
  });

  return {
    /** Follow a reply, unless it is followed already. @param {Running} running @param {string} sessionId */
    watch(running, sessionId) {
      if (watched.has(running.reply_id)) return;
      const live = newLive(running, sessionId);
      watched.set(running.reply_id, { live, cursor: 0, abort: null });
      store.state.live.set(live.messageId, live);
      store.touch("live");
      if (!document.hidden) read(running.reply_id);
    },

    /** Look away from every reply (another session is shown); they go on by themselves. */
    leave() {
      for (const { live, abort } of watched.values()) {
        abort?.abort();
        store.state.live.delete(live.messageId);
      }
      watched.clear();
      store.touch("live");
    },

    /** Have the thought of a reply end, unless it has just ended. @param {Live} live */
    async answerNow(live) {
      await post(`/api/replies/${live.replyId}/answer`).catch((error) => {
        if (![400, 404, 410].includes(error.status)) throw error;
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
