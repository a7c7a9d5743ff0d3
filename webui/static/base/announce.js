// @ts-check
/**
 * Tells screen readers what happened, through one polite live region. Whole sentences only, never single
 * tokens.
 */

import { byId } from "./dom.js";

const KEPT_LINES = 8;

/**
 * A paragraph of a reply that is being written is finished; chat/reader.js tells of replies in another way.
 * @param {string} text
 */
export function announceParagraph(text) {
  if (!document.documentElement.dataset.reader) announce(text);
}

/** @param {string} text */
export function announce(text) {
  const region = byId("announcer");
  const line = document.createElement("p");
  line.textContent = text;
  region.append(line);
  while (region.childElementCount > KEPT_LINES) region.firstElementChild?.remove();
}
