// @ts-check
/**
 * Formulas by KaTeX, as MathML, which browsers draw themselves; KaTeX's other output lays out by style
 * attributes, and those the content security policy forbids. Loaded by formula.js when there is something to
 * set.
 */

import { sanitizer } from "./sanitize.js";

const RULES = {
  ALLOWED_TAGS: [
    "math",
    "mfrac",
    "mi",
    "mn",
    "mo",
    "mover",
    "mpadded",
    "mphantom",
    "mroot",
    "mrow",
    "ms",
    "mspace",
    "msqrt",
    "mstyle",
    "msub",
    "msubsup",
    "msup",
    "mtable",
    "mtd",
    "mtext",
    "mtr",
    "munder",
    "munderover",
    "semantics",
  ],
  ALLOWED_ATTR: [
    "accent",
    "accentunder",
    "columnalign",
    "columnspacing",
    "display",
    "displaystyle",
    "fence",
    "height",
    "linethickness",
    "lspace",
    "mathvariant",
    "maxsize",
    "minsize",
    "movablelimits",
    "rowspacing",
    "rspace",
    "scriptlevel",
    "separator",
    "stretchy",
    "width",
  ],
  FORBID_CONTENTS: ["annotation"],
};

/** @type {(html: string) => DocumentFragment} */
let sanitize;

/** Formulas as they were set last: a text that grows has the same ones made again and again. */
const MAX_KEPT = 500;
/** @type {Map<string, DocumentFragment>} */
const set = new Map();

/** typeset(), once what it needs is loaded: KaTeX is a script that leaves itself at the window. */
export async function loadTypesetter() {
  [sanitize] = await Promise.all([sanitizer(RULES), import("../vendor/katex/katex.min.js")]);
  return typeset;
}

/**
 * Put the formula into `element`; what KaTeX cannot read stands there as it was written.
 * @param {HTMLElement} element @param {string} tex @param {boolean} display
 */
function typeset(element, tex, display) {
  const key = `${display} ${tex}`;
  const known = set.get(key);
  if (known) {
    element.replaceChildren(known.cloneNode(true));
    return;
  }
  let html = "";
  try {
    html = /** @type {any} */ (globalThis).katex.renderToString(tex, {
      displayMode: display,
      output: "mathml",
      strict: "ignore",
      trust: false,
      maxExpand: 500,
      maxSize: 20,
    });
  } catch {
    return;
  }
  const drawn = sanitize(html);
  if (!drawn.querySelector("math")) return;
  if (set.size >= MAX_KEPT) set.delete(/** @type {string} */ (set.keys().next().value));
  set.set(key, drawn);
  element.replaceChildren(drawn.cloneNode(true));
}
