// @ts-check
/**
 * Mathematics in a message: where it begins and ends, and when it is set. Finding it costs no more than a
 * bound for each text, and setting it goes in slices between which the page answers; what is beyond either
 * stands as written.
 */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";

/** Longer ones stay as they are written: they are no formula that somebody reads. */
const MAX_CHARS = 4000;
/**
 * So many characters may be looked at in vain for one text; a page of prose with prices takes some
 * thousands.
 */
const MAX_SEARCHED = 8_000_000;
/** marked reads the rest of the text anew after each break that a formula makes between its blocks. */
const COST_OF_A_BREAK = 1 / 8;
/** So many formulas of one text are set. */
const MAX_FORMULAS = 1000;
const SLICE_MS = 8;

/**
 * "$5 and $10", "$5 (or 10$)", "$HOME/bin:$PATH" are no formulas.
 * @param {string} text between two dollar signs
 */
function isFormula(text) {
  if (/^\s|\s$/.test(text)) return false;
  if (/[\\^_={}]/.test(text)) return true;
  return /^\d*[A-Za-z]'*$/.test(text) || (/[-+*/<>|!(]/.test(text) && !isProse(text));
}

/** A word of several letters, or a sum of money before a space. @param {string} text */
const isProse = (text) => /[A-Za-z]{3}/.test(text) || /^[\d.,]+\s/.test(text);

/** Finds the formulas of one text at a time. */
export class MathFinder {
  #left = MAX_SEARCHED;

  /** Another text is read. */
  begin() {
    this.#left = MAX_SEARCHED;
  }

  /**
   * Where the next formula may begin, so that marked's plain text ends there.
   * @param {string} source @param {boolean} display @returns {number | undefined}
   */
  start(source, display) {
    if (this.#left <= 0) return undefined;
    if (!display) {
      const at = source.indexOf("$"); // at "\(" it ends by itself
      return at < 0 ? undefined : at;
    }
    const next = (mark) => {
      let at = -2;
      while ((at = source.indexOf(mark, at + 2)) >= 0) {
        this.#left -= 50;
        if (/(?:^|\n) {0,3}$/.test(source.slice(Math.max(0, at - 4), at))) return at;
      }
      return Infinity;
    };
    const at = Math.min(next("$$"), next("\\["));
    return at === Infinity ? undefined : at;
  }

  /**
   * The formula at the beginning of `source`: a block of its own, or within a line.
   * @param {string} source @param {boolean} display
   * @returns {{raw: string, tex: string} | null}
   */
  find(source, display) {
    if (this.#left <= 0) return null;
    const found = display ? this.#block(source) : this.#inline(source);
    return found?.tex ? found : null;
  }

  /** @param {string} source */
  #block(source) {
    const [, indent, mark] = source.match(/^( {0,3})(\$\$|\\\[)/) || [];
    if (!mark) return null;
    const from = indent.length + 2;
    const end = this.#closing(source, from, mark === "$$" ? "$$" : "\\]", true);
    const tex = end < 0 ? "" : source.slice(from, end).trim();
    const rest = tex && source.slice(end + 2, end + 80).match(/^ *(?:\n|$)/);
    this.#left -= source.length * (rest ? COST_OF_A_BREAK : 1);
    return rest ? { raw: source.slice(0, end + 2 + rest[0].length), tex } : null;
  }

  /** @param {string} source */
  #inline(source) {
    const mark = ["\\(", "$$", "$"].find((one) => source.startsWith(one));
    if (!mark) return null;
    const closer = mark === "\\(" ? "\\)" : mark;
    const end = this.#closing(source, mark.length, closer, false);
    if (end < 0) return null;
    const tex = source.slice(mark.length, end);
    const raw = source.slice(0, end + closer.length);
    if (mark === "$" && (/^[\w$]/.test(source.slice(end + 1, end + 2)) || !isFormula(tex))) return null;
    return { raw, tex: tex.trim() };
  }

  /**
   * Where `mark` stands first, or -1. Within a line a formula holds no empty line, between dollars none at
   * all.
   * @param {string} source @param {number} from @param {string} mark @param {boolean} display
   */
  #closing(source, from, mark, display) {
    const dollars = mark.startsWith("$");
    const last = Math.min(source.length, from + MAX_CHARS);
    let at = from;
    for (; at < last; at += 1) {
      if (source.startsWith(mark, at)) return at;
      const character = source[at];
      if (character === "\\") at += 1;
      else if (character === "$" && dollars) break;
      else if (display) continue;
      else if (character === "`" && dollars) break;
      else if (character === "\n" && (mark === "$" || source[at + 1] === "\n")) break;
    }
    this.#left -= at - from;
    return -1;
  }
}

/** @type {((element: HTMLElement, tex: string, display: boolean) => void) | null} */
let typeset = null;
let isLoading = false;
/** What waits to be set. @type {{element: HTMLElement, tex: string, display: boolean}[]} */
let waiting = [];
let timer = 0;
/** Until when formulas are set at once. */
let sliceEnd = 0;
/** How often a formula was met since this text began. */
let met = 0;

/** Another text is made: its formulas are counted anew. */
export function beginFormulas() {
  met = 0;
}

/** Set what waits, for one slice. */
function setWaiting() {
  timer = 0;
  sliceEnd = performance.now() + SLICE_MS;
  while (waiting.length && performance.now() < sliceEnd) {
    const { element, tex, display } = /** @type {any} */ (waiting.shift());
    if (element.isConnected) typeset?.(element, tex, display);
  }
  if (waiting.length) timer = window.setTimeout(setWaiting);
}

async function load() {
  isLoading = true;
  try {
    typeset = await (await import("./math.js")).loadTypesetter();
    setWaiting();
  } catch {
    waiting = []; // their sources stay; the next formula tries again
  }
  isLoading = false;
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
    "aria-label": display ? t("Formula") : null,
    data: { tex },
    text: tex,
  });
  if ((met += 1) > MAX_FORMULAS) return element;
  if (!sliceEnd || performance.now() > sliceEnd + SLICE_MS) sliceEnd = performance.now() + SLICE_MS;
  if (typeset && !waiting.length && performance.now() < sliceEnd) typeset(element, tex, display);
  else {
    waiting.push({ element, tex, display });
    if (!typeset && !isLoading) load();
    else if (typeset && !timer) timer = window.setTimeout(setWaiting);
  }
  return element;
}
