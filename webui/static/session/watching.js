// @ts-check
/**
 * What the events of running replies change in the session on screen: where a reply stands, and how it ends.
 * @import { Live, Message, Running } from "../types.js"
 * @import { Store } from "./store.js"
 */

import { t } from "../base/language.js";
import { createReplies } from "./replies.js";
import { messageOf, withMessage } from "./tree.js";

/**
 * @param {Store} store
 * @param {{error: (error: any) => void, connection: (connected: boolean) => void,
 *   flush: (replies: Live[]) => void,
 *   announce: (text: string) => void, note: (text: string) => void}} page
 * @param {() => void} refresh reads the session again
 */
export function createWatching(store, page, refresh) {
  /** Someone waits here for every reply to end. @type {(() => void)[]} */
  let waiting = [];
  /** What the replies that were watched here have become, or will. @type {Set<string>} */
  const written = new Set();

  /** Replies with something new that the next frame shows. @type {Set<Live>} */
  const fresh = new Set();

  /** @param {Live} live */
  function show(live) {
    if (!fresh.size)
      requestAnimationFrame(() => {
        const replies = [...fresh];
        fresh.clear();
        page.flush(replies);
      });
    fresh.add(live);
  }

  const replies = createReplies(store, {
    connection: page.connection,
    progress: show,
    started(live) {
      const { session } = store.state;
      if (!session || session.id !== live.sessionId) return;
      const known = messageOf(session, live.messageId);
      if (!known) store.state.viewLeaf = live.messageId;
      store.touch("live", "viewLeaf");
    },
    held(live, data) {
      const { session } = store.state;
      if (session?.id === live.sessionId)
        store.set({ session: withMessage(session, data.message, data.revision, session.leaf === live.parent) });
      store.touch("live");
    },
    finished(live, data) {
      settle(live, data.message, data.revision, data.next);
      if (live.base && !live.text && !live.think) page.note(t("{name} had nothing to add.", live));
    },
    failed(live, data) {
      settle(live, data.partial, data.revision, null);
      page.announce(t("The reply failed: {message}", data));
    },
    lost() {
      if (!store.state.live.size) for (const resolve of waiting.splice(0)) resolve();
      store.touch("live");
      refresh();
    },
  });

  /** @param {Live} live @param {Message | null} message @param {number} revision @param {any} next */
  function settle(live, message, revision, next) {
    const { session, viewLeaf } = store.state;
    if (!session || session.id !== live.sessionId) return;
    const seen = viewLeaf === live.messageId || session.leaf === live.messageId || session.leaf === live.parent;
    store.set({
      session: message ? withMessage(session, message, revision ?? 0, seen) : session,
      viewLeaf: viewLeaf === live.messageId ? null : viewLeaf,
    });
    store.touch("live");
    if (next) watch(next, live.sessionId);
    if (store.state.live.size) return;
    for (const resolve of waiting.splice(0)) resolve();
    refresh();
  }

  /** @param {Running} running @param {string} sessionId */
  function watch(running, sessionId) {
    written.add(running.message_id);
    replies.watch(running, sessionId);
  }

  const stop = () => replies.stop().catch(page.error);

  return {
    watch,
    /** Whether a message is a reply that was watched here. @param {string} id */
    hasWatched: (id) => written.has(id),
    leave: replies.leave,
    stop,
    /** @param {Live} live */
    stopOne: (live) => replies.stopOne(live).catch(page.error),
    /** @param {Live} live */
    answerNow: (live) => replies.answerNow(live).catch(page.error),

    /** Stop what is being written and wait until the server has kept it. */
    stopAndWait() {
      const ended = new Promise((resolve) => waiting.push(() => resolve(undefined)));
      stop();
      return ended;
    },
  };
}
