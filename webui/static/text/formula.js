// @ts-check
/**
 * Mathematics in a message: where it begins and ends. What sets it is loaded with the first formula.
 */

import { h } from "../base/dom.js";

/** Longer ones stay as they are written: they are no formula that somebody reads. */
const MOST_CHARS = 4000;

const INLINE = /^\\\(((?:[^\\\n]|\\[^)\n]|\n(?!\n))+?)\\\)|^\$((?:[^$\\\n`]|\\[^\n])+?)\$(?![\w$])/;
const BLOCK = /^ {0,3}(?:\$\$([^$]+?)\$\$|\\\[([^]+?)\\\]) *(?:\n|$)/;

/** "$5 and $10", "$5 (or 10$)", "$HOME/bin:$PATH" are no formulas. @param {string} text between two dollar signs */
function isFormula(text) {
  if (/^\s|\s$/.test(text)) return false;
  if (/[\\^_={}]/.test(text)) return true;
  return /^\d*[A-Za-z]'*$/.test(text) || (/[-+*/<>|!(]/.test(text) && !isProse(text));
}

/** A word of several letters, or a sum of money before a space. @param {string} text */
const isProse = (text) => /[A-Za-z]{3}/.test(text) || /^[\d.,]+\s/.test(text);

/**
 * Where inline or displayed mathematics stands at the beginning of `source`.
 * @param {string} source @param {boolean} display
 * @returns {{raw: string, tex: string} | null}
 */
export function findMath(source, display) {
  const match = source.match(display ? BLOCK : INLINE);
  if (!match || match[0].length > MOST_CHARS) return null;
  const tex = match[1] ?? match[2];
  if (!display && match[2] !== undefined && !isFormula(tex)) return null;
  return tex.trim() ? { raw: match[0], tex: tex.trim() } : null;
}

/**
 * A formula for the page: its source until it is set.
 * @param {string} tex @param {boolean} display
 */
export function formula(tex, display) {
  const element = h(display ? "div" : "span", {
    class: display ? "math math-display" : "math",
    dir: "ltr",
    tabindex: display ? "0" : null,
    role: display ? "group" : null,
    "aria-label": display ? "Formula" : null,
    text: tex,
  });
  if (typeset) typeset(element, tex, display);
  else
    import("./math.js")
      .then((math) => math.loadTypesetter())
      .then(
        (loaded) => {
          typeset = loaded;
          loaded(element, tex, display);
        },
        () => {}, // the source stays; the next formula tries again
      );
  return element;
}

/** @type {((element: HTMLElement, tex: string, display: boolean) => void) | null} */
let typeset = null;
