// @ts-check
/**
 * The sentences of a text that grows, for those who hear it: each once it is finished, without the marks of
 * Markdown, and of a block of code only that it is there. Pure functions.
 */

import { tn } from "../base/language.js";

const segmenter = new Intl.Segmenter(document.documentElement.lang, { granularity: "sentence" });
const FENCE = /^ {0,3}(`{3,}|~{3,})[^\n]*\n/m;

/**
 * What is finished behind `from`.
 * @param {string} text @param {number} from @param {boolean} ended nothing more comes
 * @returns {{said: string, to: number}} as it is to be heard, and where what is not finished begins
 */
export function finishedSentences(text, from, ended) {
  const said = [];
  let to = from;
  for (;;) {
    const tail = text.slice(to);
    const fence = tail.match(FENCE);
    const prose = fence ? tail.slice(0, fence.index) : tail;
    const whole = fence || ended ? prose : withoutLast(prose);
    said.push(spoken(whole));
    to += whole.length;
    if (!fence) break;
    const end = new RegExp(`^ {0,3}${fence[1]}[${fence[1][0]}]*[ \\t]*$\\n?`, "m");
    const inside = text.slice(to + fence[0].length);
    const close = inside.match(end);
    if (!close && !ended) break;
    const code = close ? inside.slice(0, close.index) : inside;
    said.push(tn("One line of code.", "{count} lines of code.", Math.max(1, code.trimEnd().split("\n").length)));
    to += fence[0].length + (close ? Number(close.index) + close[0].length : inside.length);
  }
  return { said: said.filter(Boolean).join(" "), to };
}

/** Up to the last sentence, which may go on; a line that is over is finished. @param {string} prose */
function withoutLast(prose) {
  if (prose.endsWith("\n")) return prose;
  const last = [...segmenter.segment(prose)].at(-1);
  return last ? prose.slice(0, last.index) : "";
}

/** @param {string} markdown */
export function spoken(markdown) {
  return markdown
    .replace(/!?\[([^\]\n]*)\]\([^)\n]*\)/g, "$1")
    .replace(/^[ \t]*(?:#{1,6}|>+|[-*+])[ \t]+/gm, "")
    .replace(/^[ \t]*\|?[ \t:|-]+\|[ \t:|-]*$/gm, "")
    .replace(/\*\*|__|~~|`|\|/g, "")
    .replace(/(?<![\p{L}\p{N}])[*_](?=\S)|(?<=\S)[*_](?![\p{L}\p{N}])/gu, "")
    .replace(/\s+/g, " ")
    .trim();
}
