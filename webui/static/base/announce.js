// @ts-check
/**
 * Tells screen readers what happened, through one polite live region. Whole sentences only, never single
 * tokens.
 */

import { byId } from "./dom.js";

const KEPT_LINES = 8;

/** @param {string} text */
export function announce(text) {
  const region = byId("announcer");
  const line = document.createElement("p");
  line.textContent = text;
  region.append(line);
  while (region.childElementCount > KEPT_LINES) region.firstElementChild?.remove();
}
