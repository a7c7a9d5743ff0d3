// @ts-check
/**
 * What this browser remembers: drafts by session, and how the page is set up. Storage that is full or off is
 * no error.
 */

const PREFIX = "parlor.";

/** @param {string} key @param {string} [missing] */
export function recall(key, missing = "") {
  try {
    return localStorage.getItem(PREFIX + key) ?? missing;
  } catch {
    return missing;
  }
}

/**
 * Remember a text; an empty one is forgotten.
 * @param {string} key @param {string} value @returns {boolean} whether there was room
 */
export function remember(key, value) {
  try {
    if (value) localStorage.setItem(PREFIX + key, value);
    else localStorage.removeItem(PREFIX + key);
    return true;
  } catch {
    return false; // private windows and full disks: the page works, it only forgets
  }
}

/** @param {string | null} sessionId */
export const draftKey = (sessionId) => `draft.${sessionId || "new"}`;
