// @ts-check
/** Files that are attached to a message which is not sent yet, by session, in this browser. */

import { recall, remember } from "../base/storage.js";

/**
 * @typedef {{name: string, size: number, block: string}} Attached `block` is how it stands in a message
 * @typedef {{id: string | null | undefined, files: Attached[], sending: Attached[], reading: string[]}} Place
 *   a session's files: beside the message box, on their way to the server, and the names of those being read
 */

/** @param {string | null | undefined} sessionId */
const key = (sessionId) => `files.${sessionId || "new"}`;

/** @param {Place} place @returns {boolean} whether this browser had room for it */
export const keepFiles = ({ id, files, sending }) =>
  remember(key(id), files.length + sending.length ? JSON.stringify([...sending, ...files]) : "");

/** @param {string | null | undefined} id undefined: of no session @returns {Place} */
export function recallFiles(id) {
  let files = [];
  try {
    if (id !== undefined) files = JSON.parse(recall(key(id), "[]"));
  } catch {
    // written by something else
  }
  return { id, files, sending: [], reading: [] };
}

/** Whether this tab was loaded again while it read files of the session: see writing/unread.js.
 * @param {string | null | undefined} id */
export function hasUnread(id) {
  try {
    return Boolean(sessionStorage.getItem("parlor.unread")?.includes(`"id":${JSON.stringify(id)}`));
  } catch {
    return false; // no storage
  }
}

/** @param {string | null} sessionId of a session that is gone */
export const forgetFiles = (sessionId) => remember(key(sessionId), "");
