// @ts-check
/**
 * The session on screen and everything that can be done to it. Knows no element.
 * @import { Live, Message } from "../types.js"
 * @import { Store } from "./store.js"
 */

import { t } from "../base/language.js";
import { ApiError } from "../server/api.js";
import { Answers } from "./answers.js";
import { corrections } from "./corrections.js";
import { FarTexts, nearPath } from "./far-texts.js";
import { createOperations } from "./operations.js";
import { createSaving, unsavedSession } from "./saving.js";
import { differsOnlyIn, shownPath, withOutgoing } from "./tree.js";
import { createWatching } from "./watching.js";

/**
 * @param {Store} store
 * @param {{error: (error: any) => void, conflict: () => void, connection: (connected: boolean) => void,
 *   flush: (replies: Live[]) => void, announce: (text: string) => void, note: (text: string) => void}} page
 */
export function createRoom(store, page) {
  const answers = new Answers();
  const { get, patch, post } = answers;
  /** How often another session was asked for. */
  let openings = 0;
  const replies = createWatching(store, page, () => room.refresh());
  const texts = new FarTexts(store, answers, { refresh: () => room.refresh(), error: page.error });

  /** Take over what the server says about the session. @param {any} body */
  function adopt(body) {
    if (!body.session) return;
    answers.take(body.session);
    const session = saving.onTopOf(body.session);
    const changes = { session, context: body.context || store.state.context };
    if (store.state.session?.id !== session.id) Object.assign(changes, { viewLeaf: null });
    if (body.message) Object.assign(changes, { outgoing: null }); // it has its place now
    const running = [...(body.replies || session.replies || []), ...(body.reply ? [body.reply] : [])];
    // Before the session, so that the page is drawn once.
    for (const reply of running) replies.watch(reply, /** @type {string} */ (session.id));
    store.set(changes);
    texts.begin();
  }

  const operation = createOperations(store, adopt, page);
  const saving = createSaving(store, operation, page, answers);

  /** The id of the session once the server has it and all that was set on it, or "". */
  async function ready() {
    const id = await saving.ensureSaved();
    return id && (await saving.flush()) ? id : "";
  }

  /**
   * Ask for something below a session, unless another one is shown by then.
   * @param {string} id @param {string} what @param {any} body
   */
  const ask = (id, what, body) =>
    operation(async (session) => {
      if (session.id !== id) throw new ApiError(404, { error: { message: t("Another session is shown by now.") } });
      const send = (revision) => post(`/api/sessions/${id}/${what}`, { revision, ...body });
      try {
        return await send(session.revision);
      } catch (error) {
        const now = error instanceof ApiError && error.status === 409 && error.session;
        if (!now || now.id !== id || !differsOnlyIn(session, now, replies.hasWatched)) throw error;
        return send(now.revision); // a reply that is shown here has ended meanwhile: no other tab did anything
      }
    });

  const room = {
    /** Ask for a session that is to be opened. @param {string} id @returns {Promise<any>} */
    read: (id) => get(nearPath(id)),

    /**
     * Show a session. Answers false if yet another one was asked for meanwhile.
     * @param {string} id @param {Promise<any>} [reading] it, if it was asked for already
     */
    async open(id, reading) {
      const number = (openings += 1);
      await saving.flush();
      const body = await (reading || room.read(id));
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
      const body = await room.read(id).catch(() => null);
      const now = store.state.session;
      if (!body || !now || now.id !== id || body.session.revision < now.revision) return;
      adopt(body);
    },

    /** Have the texts of all messages. Answers whether they are there. */
    whole: () => texts.whole(),
    wholeNow: () => texts.wholeNow(),
    moreTexts: () => texts.more(),

    change: saving.change,
    flushPatch: saving.flush,

    ready,

    /**
     * Say something, and let whoever is next answer; it is shown at once.
     * @param {string} text @param {string[] | null} audience the bots whom it is for; null: all
     * @param {string} [begin] the first words of the answer
     */
    async say(text, audience, begin) {
      const only = audience ? { for: audience } : {};
      const outgoing = { text, created: Date.now() / 1000, ...only };
      store.set({ outgoing });
      const id = await ready();
      const worked = id !== "" && (await ask(id, "messages", { text, interrupt: true, begin, ...only }));
      if (store.state.outgoing === outgoing) store.set({ outgoing: null });
      return worked;
    },

    /** Say something else to the same ones, as a branch. @param {Message} message @param {string} text */
    async sayInstead(message, text) {
      const id = await ready();
      return id !== "" && ask(id, "messages", { text, parent: message.parent, for: message.for || null, interrupt: true });
    },

    /**
     * @param {"next" | "regenerate" | "continue" | "fork"} kind
     * @param {{message?: string, bot?: string, turns?: number, token?: number, choice?: string,
     *   begin?: string}} [which]
     */
    async reply(kind, which = {}) {
      const id = await ready();
      if (store.state.live.size) await replies.stopAndWait();
      return id !== "" && ask(id, "replies", { kind, ...which });
    },

    /**
     * Ask for something below the session, and answer what went wrong, or null.
     * @param {string} what @param {any} body
     */
    async perform(what, body) {
      const id = await ready();
      /** @type {any} */
      let problem = new ApiError(404, { error: { message: t("Another session is shown by now.") } });
      const worked = await operation(async (session) => {
        try {
          if (!id || session.id !== id) throw problem;
          return await post(`/api/sessions/${id}/${what}`, { revision: session.revision, ...body });
        } catch (error) {
          throw (problem = error);
        }
      });
      return worked ? null : problem;
    },

    ...corrections(operation, answers),

    /**
     * Let bots among themselves wait while somebody types, or go on.
     * @param {string} sessionId @param {boolean} hold
     */
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

    stop: replies.stop,
    stopOne: replies.stopOne,
    answerNow: replies.answerNow,
    path() {
      const { session, live, viewLeaf, outgoing } = store.state;
      return session ? withOutgoing(shownPath(session, live, viewLeaf), outgoing) : [];
    },
  };
  return room;
}

/** @typedef {ReturnType<typeof createRoom>} Room */
