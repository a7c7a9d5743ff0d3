// @ts-check
/**
 * Whom what is being typed is for: kept with the draft, by session, until somebody says otherwise. Knows no
 * element.
 * @import { Message, State } from "../types.js"
 * @import { Store } from "./store.js"
 */

import { listed } from "../base/format.js";
import { t } from "../base/language.js";
import { recall, remember } from "../base/storage.js";
import { botOf } from "./store.js";

/** @param {string | null | undefined} sessionId */
const key = (sessionId) => `whisper.${sessionId || "new"}`;

/** What is typed is for these bots only, from now on; null: for all. @param {Store} store
 * @param {string[] | null} audience */
export function whisperTo(store, audience) {
  remember(key(store.state.session?.id), (audience || []).join(" "));
  store.set({ audience });
}

/** Another session is shown; `was` is what this one was called before it was saved. @param {Store} store
 * @param {string | null} [was] */
export function recallWhisper(store, was) {
  const id = store.state.session?.id;
  if (was === null) {
    remember(key(id), recall(key(null)));
    remember(key(null), "");
  }
  const ids = recall(key(id)).split(" ").filter(Boolean);
  store.set({ audience: ids.length ? ids : null });
}

/** @param {string} sessionId of a session that is gone */
export const forgetWhisper = (sessionId) => remember(key(sessionId), "");

/** The names of these bots, as in a sentence. @param {State} state @param {string[]} ids */
export const namesOf = (state, ids) => listed(ids.map((id) => botOf(state, id)?.name || t("somebody who is gone")));

/**
 * Whom a message is for, if not for all.
 * @param {State} state @param {{author: string, for?: string[] | null}} message
 */
export function audienceText(state, { author, for: audience }) {
  if (!audience?.length) return "";
  if (author === "user") return t("Only for {names}", { names: namesOf(state, audience) });
  const others = audience.filter((id) => id !== author);
  return others.length ? t("Only for you and {names}", { names: namesOf(state, others) }) : t("Only for you");
}
