// @ts-check
/** Which folders of the list are closed, in this browser. */

import { recall, remember } from "../base/storage.js";

const KEY = "folders.closed";

/** As it is kept; changes with any of them. */
export const closedAsKept = () => recall(KEY);

/** @returns {string[]} */
export function closedFolders() {
  try {
    return JSON.parse(recall(KEY, "[]"));
  } catch {
    return []; // somebody wrote there
  }
}

/** @param {string[]} names */
export const rememberClosed = (names) => remember(KEY, names.length ? JSON.stringify(names) : "");
