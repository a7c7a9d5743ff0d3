// @ts-check
/**
 * What was typed into the editor of a message and not sent yet, by session and message, in this browser:
 * whatever happens to the page meanwhile, the words are there when the message is edited again.
 */

import { recall, remember } from "../base/storage.js";

/** @typedef {{text: string, open: boolean}} EditDraft `open`: the editor was not left */

/** @param {string | null} sessionId */
const key = (sessionId) => `edits.${sessionId}`;

/** @param {string | null} sessionId @returns {Record<string, EditDraft>} */
function drafts(sessionId) {
  try {
    return JSON.parse(recall(key(sessionId), "{}"));
  } catch {
    return {};
  }
}

/** @param {string | null} sessionId @param {string} messageId @returns {EditDraft | undefined} */
export const editDraft = (sessionId, messageId) => drafts(sessionId)[messageId];

/**
 * @param {string | null} sessionId @param {string} messageId @param {EditDraft | null} draft null: forget it
 */
export function keepEdit(sessionId, messageId, draft) {
  const { [messageId]: _, ...others } = drafts(sessionId);
  const kept = draft ? { ...others, [messageId]: draft } : others;
  remember(key(sessionId), Object.keys(kept).length ? JSON.stringify(kept) : "");
}

/**
 * The editor was left without a word about what was typed.
 * @param {string | null} sessionId @param {string} messageId
 */
export function leaveEdit(sessionId, messageId) {
  const draft = editDraft(sessionId, messageId);
  if (draft) keepEdit(sessionId, messageId, { ...draft, open: false });
}

/**
 * Which of the messages was being edited when the session was left.
 * @param {string} sessionId @param {{id: string}[]} path
 */
export function openEdit(sessionId, path) {
  const known = drafts(sessionId);
  return path.findLast(({ id }) => known[id]?.open)?.id || null;
}

/** @param {string} sessionId of a session that is gone */
export const forgetEdits = (sessionId) => remember(key(sessionId), "");
