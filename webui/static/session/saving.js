// @ts-check
/**
 * Saves what is changed in the panels, shortly after it was changed, and as often as it takes: while the
 * server is away or its disk is full, the changes are kept. Makes the session that exists only in this page
 * real.
 * @import { Entry, Session, State } from "../types.js"
 * @import { Answers } from "./answers.js"
 * @import { Store } from "./store.js"
 */

import { t } from "../base/language.js";
import { recall, remember } from "../base/storage.js";
import { ApiError } from "../server/api.js";
import { Unsaved } from "./unsaved.js";

const DELAY_MS = 250;
const RETRY_MS = 5000;
/** So often in a row may other tabs be faster. */
const MAX_ATTEMPTS = 5;
/** What a new session has of the one before, beside its bots, where nothing is set for all of them. */
const LASTING = ["user_name", "user_persona", "preset", "turn_order"];
const NEW_SESSION = "new-session";
const DEFAULTS = "defaults";
/** What was set for all new sessions. */
const YOURS = "yours";

/** As the server makes them. */
const randomId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** @param {string} key @returns {Record<string, any>} */
function recallFields(key) {
  try {
    return JSON.parse(recall(key, "{}"));
  } catch {
    return {};
  }
}

/** What new sessions begin with in this browser. */
export const defaults = () => ({ ...recallFields(DEFAULTS), ...recallFields(YOURS) });

/** @param {{user_name?: string, user_persona?: string, preset?: string, turn_order?: string}} fields */
export const setDefaults = (fields) => remember(YOURS, JSON.stringify({ ...recallFields(YOURS), ...fields }));

/**
 * The session that exists only in this page until its first message: as it was left, or with these bots.
 * @param {Entry[]} bots @param {State} state
 * @returns {Session}
 */
export function unsavedSession(bots, { bots: known, settings }) {
  const session = {
    id: null,
    revision: 0,
    title: t("New session"),
    created: 0,
    updated: 0,
    bots,
    user_name: "",
    system_prompt: "",
    turn_order: "in_turn",
    sampling: {},
    preset: "balanced",
    leaf: null,
    messages: [],
    seed: randomId(),
    ...defaults(),
    ...recallFields(NEW_SESSION),
  };
  session.bots = session.bots.filter((entry) => known.some((bot) => bot.id === entry.id));
  if (!settings?.presets.some((preset) => preset.id === session.preset)) session.preset = "balanced";
  return session;
}

/**
 * With what the session begins that exists only here: as it is made, and as its greetings are shown.
 * @param {Session} session
 */
export const beginning = ({ bots, greetings, user_name, seed }) =>
  ({ bots: bots.map((bot) => bot.id), greetings, user_name, seed });

/** Whether asking again later may help. @param {ApiError} error */
const mayPass = ({ status }) => status === 0 || status >= 500 || [401, 408, 409, 429].includes(status);

/**
 * @param {Store} store
 * @param {(call: (session: Session) => Promise<any>) => Promise<boolean>} operation
 * @param {{error: (error: any) => void}} page
 * @param {Answers} answers
 */
export function createSaving(store, operation, page, { patch, post }) {
  const unsaved = new Unsaved();
  let timer = 0;
  let told = false;

  /** @param {number} ms */
  function later(ms) {
    clearTimeout(timer);
    timer = window.setTimeout(flush, ms);
  }

  /** Send what is not saved yet. Answers whether nothing is left. */
  async function flush() {
    clearTimeout(timer);
    if (unsaved.isEmpty) return true;
    const worked = await operation(save);
    return worked && unsaved.isEmpty;
  }

  /** @param {Session} session */
  async function save({ id, revision }) {
    for (let attempt = 1; !unsaved.isEmpty && id; attempt += 1) {
      const { fields } = unsaved;
      try {
        const body = await patch(`/api/sessions/${id}`, { revision, ...fields });
        unsaved.settle(id, fields);
        told = false;
        return body;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.status === 409 && error.session && attempt < MAX_ATTEMPTS) {
          revision = unsaved.onTopOf(error.session).revision;
          continue;
        }
        if (!mayPass(error)) unsaved.settle(id, fields);
        else later(RETRY_MS);
        if (told) return null;
        told = mayPass(error);
        throw error;
      }
    }
    return null;
  }

  return {
    flush,

    /** Take over a session of the server's, with what is not saved yet on top. @param {Session} session */
    onTopOf(session) {
      unsaved.belongTo(session.id);
      const shown = unsaved.onTopOf(session);
      if (!unsaved.isEmpty) later(DELAY_MS);
      return shown;
    },

    /** No session of the server's is shown. */
    leave: () => unsaved.belongTo(null),

    /**
     * Change fields of the session at once here, shortly after on the server.
     * @param {Record<string, any>} changes
     */
    change(changes) {
      const { session } = store.state;
      if (!session) return;
      const lasting = Object.fromEntries(Object.entries(changes).filter(([field]) => LASTING.includes(field)));
      if (Object.keys(lasting).length)
        remember(DEFAULTS, JSON.stringify({ ...recallFields(DEFAULTS), ...lasting }));
      if (session.id) {
        unsaved.add(session, changes);
        later(DELAY_MS);
      } else remember(NEW_SESSION, JSON.stringify({ ...recallFields(NEW_SESSION), ...changes }));
      store.set({ session: { ...session, ...changes } });
    },

    /** Make the unsaved session real, with all that was set on it. Answers its id, or "" if it is not. */
    async ensureSaved() {
      const { session } = store.state;
      if (!session || session.id) return session?.id || "";
      const made = await post("/api/sessions", beginning(session)).catch(page.error);
      if (!made || store.state.session?.id !== null) return ""; // another session is shown by now
      const { user_name, user_persona, system_prompt, turn_order, sampling, preset, bots, note, lore } = store.state.session;
      const more = { ...(note && { note }), ...(lore && { lore }), ...(user_persona && { user_persona }) };
      const wanted = { user_name, system_prompt, turn_order, sampling, preset, bots, ...more };
      unsaved.belongTo(made.session.id);
      unsaved.add(made.session, wanted);
      store.set({ session: unsaved.onTopOf(made.session), context: made.context || null, viewLeaf: null });
      remember(NEW_SESSION, "");
      return (await flush()) ? made.session.id : "";
    },
  };
}
