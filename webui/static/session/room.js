// @ts-check
/**
 * The session on screen and everything that can be done to it. Each operation carries the revision it was based
 * on; a stale one is answered with 409 and the current session, which is taken over here. Operations run one after
 * the other. Knows no element.
 * @import { Live, Message, Session } from "../types.js"
 * @import { Store } from "./store.js"
 */

import { ApiError } from "../server/api.js";
import { Answers } from "./answers.js";
import { createReplies } from "./replies.js";
import { createSaving, unsavedSession } from "./saving.js";
import { messageOf, shownPath, withMessage, withOutgoing } from "./tree.js";

/**
 * @param {Store} store
 * @param {{error: (error: any) => void, conflict: () => void, connection: (connected: boolean) => void,
 *   flush: (live: Live) => void, announce: (text: string) => void, note: (text: string) => void}} page
 */
export function createRoom(store, page) {
  const answers = new Answers();
  const { get, patch, post, remove } = answers;
  /** @type {Promise<any>} */
  let queue = Promise.resolve();
  /** How often another session was asked for. */
  let openings = 0;
  /** Someone waits here for every reply to end. @type {(() => void)[]} */
  let waiting = [];

  const replies = createReplies(store, {
    connection: page.connection,
    progress: page.flush,
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
      if (live.base && !live.text && !live.think) page.note(`${live.name} had nothing to add.`);
    },
    failed(live, data) {
      settle(live, data.partial, data.revision, null);
      page.announce(`The reply failed: ${data.message}`);
    },
    lost() {
      if (!store.state.live.size) for (const resolve of waiting.splice(0)) resolve();
      store.touch("live");
      room.refresh();
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
    if (next) replies.watch(next, live.sessionId);
    if (store.state.live.size) return;
    for (const resolve of waiting.splice(0)) resolve();
    room.refresh();
  }

  /** Take over what the server says about the session. @param {any} body */
  function adopt(body) {
    if (!body.session) return;
    answers.take(body.session);
    const session = saving.onTopOf(body.session);
    const changes = { session, context: body.context || session.context || store.state.context };
    if (store.state.session?.id !== session.id) Object.assign(changes, { viewLeaf: null });
    if (body.message) Object.assign(changes, { outgoing: null }); // it has its place now
    const running = [...(body.replies || session.replies || []), ...(body.reply ? [body.reply] : [])];
    for (const reply of running) replies.watch(reply, session.id); // before, so that the page is drawn once
    store.set(changes);
  }

  /**
   * Run one operation after those before it; `call` gets the session of that moment. Answers whether it worked.
   * @param {(session: Session) => Promise<any>} call
   */
  function operation(call) {
    const run = async () => {
      const before = store.state.session;
      if (!before) return false;
      try {
        const body = await call(before);
        if (body && store.state.session?.id === (body.session?.id ?? before.id)) adopt(body);
        return true;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        const here = error.session?.id === store.state.session?.id;
        if (error.status === 409 && error.session && here) {
          adopt({ session: error.session });
          if (error.code === "busy") page.error(error);
          else page.conflict();
        } else page.error(error);
        return false;
      }
    };
    const result = queue.then(run, run);
    queue = result.catch(() => {});
    return result;
  }

  const saving = createSaving(store, operation, page, answers);

  /** The id of the session once the server has it and all that was set on it, or "". */
  async function ready() {
    const id = await saving.ensureSaved();
    return id && (await saving.flush()) ? id : "";
  }

  /** Ask for something below a session, unless another one is shown by then. @param {string} id @param {string} what @param {any} body */
  const ask = (id, what, body) =>
    operation(async (session) => {
      if (session.id !== id) throw new ApiError(404, { error: { message: "Another session is shown by now." } });
      return post(`/api/sessions/${id}/${what}`, { revision: session.revision, ...body });
    });

  const room = {
    /**
     * Show a session. Answers false if yet another one was asked for meanwhile.
     * @param {string} id @param {Promise<any>} [reading] it, if it was asked for already
     */
    async open(id, reading) {
      const number = (openings += 1);
      await saving.flush();
      const body = await (reading || get(`/api/sessions/${id}`));
      if (number !== openings) return false;
      replies.leave();
      store.set({ session: null, context: null, viewLeaf: null, editing: null, outgoing: null });
      adopt(body);
      return true;
    },

    /** Show the empty page on which a session begins. @param {{id: string, muted: boolean}[]} bots */
    async openNew(bots) {
      const number = (openings += 1);
      await saving.flush();
      if (number !== openings) return;
      replies.leave();
      saving.leave();
      const session = unsavedSession(bots, store.state);
      store.set({ session, context: null, viewLeaf: null, editing: null, outgoing: null });
    },

    /** Read the session again; what is being written goes on. */
    async refresh() {
      const id = store.state.session?.id;
      if (!id) return;
      const body = await get(`/api/sessions/${id}`).catch(() => null);
      const now = store.state.session;
      if (!body || !now || now.id !== id || body.session.revision < now.revision) return;
      adopt(body);
    },

    change: saving.change,
    flushPatch: saving.flush,

    /** Say something, and let whoever is next answer; it is shown at once. @param {string} text */
    async say(text) {
      const outgoing = { text, created: Date.now() / 1000 };
      store.set({ outgoing });
      const id = await ready();
      const worked = id !== "" && (await ask(id, "messages", { text, interrupt: true }));
      if (store.state.outgoing === outgoing) store.set({ outgoing: null });
      return worked;
    },

    /** Say something else at an earlier place: a branch. @param {Message} message @param {string} text */
    async sayInstead(message, text) {
      const id = await ready();
      return id !== "" && ask(id, "messages", { text, parent: message.parent, interrupt: true });
    },

    /** @param {"next" | "regenerate" | "continue"} kind @param {{message?: string, bot?: string, turns?: number}} [which] */
    async reply(kind, which = {}) {
      const id = await ready();
      if (store.state.live.size) await room.stopAndWait();
      return id !== "" && ask(id, "replies", { kind, ...which });
    },

    /** @param {Message} message @param {string} text */
    correct: (message, text) =>
      operation((session) =>
        patch(`/api/sessions/${session.id}/messages/${message.id}`, { revision: session.revision, text }),
      ),

    /** Take a message out. Answers the token that brings it back, or "". @param {Message} message */
    async erase(message) {
      let undo = "";
      await operation(async (session) => {
        const body = await remove(`/api/sessions/${session.id}/messages/${message.id}`, {
          revision: session.revision,
        });
        undo = body.undo;
        return body;
      });
      return undo;
    },

    /** Undo erase(). @param {string} sessionId @param {string} undo */
    bringBack: (sessionId, undo) =>
      operation((session) =>
        session.id === sessionId
          ? post(`/api/sessions/${session.id}/messages/restore`, { revision: session.revision, undo })
          : Promise.reject(new ApiError(404, { error: { message: "Open the message's session first." } })),
      ),

    /** Let bots among themselves wait while somebody types, or go on. @param {string} sessionId @param {boolean} hold */
    hold(sessionId, hold) {
      post(`/api/sessions/${sessionId}/hold`, { hold }).catch(() => {});
    },

    /** Show another version of a message and what followed it. @param {string} leaf */
    async show(leaf) {
      if (store.state.live.has(leaf)) {
        store.set({ viewLeaf: leaf });
        return true;
      }
      store.set({ viewLeaf: null });
      return operation((session) => patch(`/api/sessions/${session.id}`, { revision: session.revision, leaf }));
    },

    stop: () => replies.stop().catch(page.error),

    /** Stop what is being written and wait until the server has kept it. */
    stopAndWait() {
      const ended = new Promise((resolve) => waiting.push(() => resolve(undefined)));
      replies.stop().catch(page.error);
      return ended;
    },

    leave: () => replies.leave(),
    path() {
      const { session, live, viewLeaf, outgoing } = store.state;
      return session ? withOutgoing(shownPath(session, live, viewLeaf), outgoing) : [];
    },
  };
  return room;
}

/** @typedef {ReturnType<typeof createRoom>} Room */
