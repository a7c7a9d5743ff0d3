// @ts-check
/**
 * Tokens and their shares as people read and hear them: what is not seen gets a mark or a name.
 * @import { Piece } from "../types.js"
 */

import { h } from "../base/dom.js";
import { percent as percentText } from "../base/format.js";
import { t, tn } from "../base/language.js";

const SIGNS = { "\n": "↵", "\t": "⇥", " ": "␣" };
/** White space at an end, and what is never seen. The joiners of emoji are none of these. */
const UNSEEN = /^\s+|\s+$|(?!\u200d)[\p{Cc}\p{Cf}\p{Co}]+/gu;

/** A share as people read it; what was rounded says nothing of certainty. @param {number} logprob */
export const percent = (logprob) => shareText(Math.min(0.9999, Math.exp(logprob)));

/** @param {number} share 0 to 1 */
export function shareText(share) {
  if (share >= 0.9995) return share === 1 ? percentText(1, 0) : `>${percentText(0.999, 1)}`;
  if (share >= 0.0995 && share < 0.995) return percentText(share, 0);
  return share >= 0.001 ? percentText(share, 1) : share ? `<${percentText(0.001, 1)}` : percentText(0, 0);
}

/** How it is said: what it looks like, and what it is if it looks like nothing. @param {Piece} token */
export function spoken({ text, bytes }) {
  if (bytes) return t("a part of a character, {bytes}", { bytes });
  if (text.trim()) return text.replace(UNSEEN, "") || [...text].map(signOf).join("");
  return text.includes("\n")
    ? tn("{count} line break", "{count} line breaks", text.split("\n").length - 1)
    : tn("{count} space", "{count} spaces", text.length);
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
