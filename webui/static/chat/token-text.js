// @ts-check
/**
 * Tokens and their shares as people read and hear them: what is not seen gets a mark or a name.
 * @import { Piece } from "../types.js"
 */

import { h } from "../base/dom.js";
import { plural } from "../base/format.js";

const SIGNS = { "\n": "↵", "\t": "⇥", " ": "␣" };
/** White space at an end, and what is never seen. The joiners of emoji are none of these. */
const UNSEEN = /^\s+|\s+$|(?!\u200d)[\p{Cc}\p{Cf}\p{Co}]+/gu;

/** A share as people read it; what was rounded says nothing of certainty. @param {number} logprob */
export const percent = (logprob) => shareText(Math.min(0.9999, Math.exp(logprob)));

/** @param {number} share 0 to 1 */
export function shareText(share) {
  const percent = share * 100;
  if (percent >= 99.95) return percent === 100 ? "100%" : ">99.9%";
  if (percent >= 9.95 && percent < 99.5) return `${Math.round(percent)}%`;
  return percent >= 0.1 ? `${percent.toFixed(1)}%` : percent ? "<0.1%" : "0%";
}

/** How it is said: what it looks like, and what it is if it looks like nothing. @param {Piece} token */
export function spoken({ text, bytes }) {
  if (bytes) return `a part of a character, ${bytes}`;
  if (text.trim()) return text.replace(UNSEEN, "") || [...text].map(signOf).join("");
  return text.includes("\n") ? plural(text.split("\n").length - 1, "line break") : plural(text.length, "space");
}

/** With marks for what is else not seen. @param {Piece} token */
export function marked({ text, bytes }) {
  if (bytes) return [mark(bytes)];
  const parts = [];
  let from = 0;
  for (const { 0: unseen, index } of text.matchAll(UNSEEN)) {
    parts.push(text.slice(from, index), mark([...unseen].map(signOf).join("")));
    from = index + unseen.length;
  }
  return [...parts, text.slice(from)].filter((part) => part !== "");
}

/** @param {string} sign */
const mark = (sign) => h("span", { class: "lens-mark", text: sign });

/** @param {string} one */
function signOf(one) {
  const code = /** @type {number} */ (one.codePointAt(0)).toString(16).toUpperCase();
  return SIGNS[one] || `U+${code.padStart(4, "0")} `;
}
