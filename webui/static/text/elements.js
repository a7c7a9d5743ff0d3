// @ts-check
/**
 * The tokens of marked's lexer as elements. Model text is untrusted, and this is the only way it takes: no
 * HTML is written or parsed, so there can be no element and no attribute but those below, and HTML in the
 * text is text. Pictures are never loaded; links show where they lead. Knows nothing of messages.
 */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";
import { codeBlock } from "./code.js";
import { formula } from "./formula.js";

/** Nobody writes so deep; the browser's layout would break on much deeper ones. */
const MAX_DEPTH = 100;
const LINKED = new Set(["http:", "https:", "mailto:"]);
const REFERENCE = /&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z][\da-z]*);/gi;

const inert = document.implementation.createHTMLDocument("").createRange();
/** "&copy;" is a character for the browser, which knows them all. @param {string} reference */
const character = (reference) => inert.createContextualFragment(reference).textContent || "";
/** @param {string} text */
const decoded = (text) => (text.includes("&") ? text.replace(REFERENCE, character) : text);

/**
 * What stands around a token.
 * @typedef {{finished: boolean, depth: number, inLink?: boolean}} Around
 *
 * What each kind of token becomes.
 * @type {Record<string, (token: any, around: Around) => Node | string>}
 */
const MAKE = {
  blockquote: ({ tokens }, around) => fill(h("blockquote"), tokens, around),
  br: () => h("br"),
  checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  code: ({ text, lang }, { finished }) =>
    codeBlock(text.replace(/\n$/, ""), decoded(lang || "").split(/\s/, 1)[0].slice(0, 30), finished),
  codespan: ({ text }) => h("code", { text }),
  def: () => "",
  del: ({ tokens }, around) => fill(h("del"), tokens, around),
  em: ({ tokens }, around) => fill(h("em"), tokens, around),
  escape: ({ text }) => text,
  // One level for all of them: a reply's headings lie within the page's, and may not skip a level there.
  heading: ({ tokens, depth }, around) => fill(h("h3", { class: `heading-${depth}` }), tokens, around),
  hr: () => h("hr"),
  html: ({ text, block }) => (block ? h("p", { text: text.trim() }) : text),
  image: ({ href, text }, around) => link(href, [{ type: "escape", text: t("Picture: {name}", { name: text || t("untitled") }) }], around),
  link: ({ href, text, tokens, autolink }, around) =>
    autolink ? link(href, [{ type: "escape", text }], around) : link(decoded(href), tokens, around),
  list: ({ ordered, start, items }, around) =>
    fill(ordered ? h("ol", { start: start === 1 ? null : start }) : h("ul"), items, around),
  list_item: ({ tokens }, around) => fill(h("li"), tokens, around),
  mathBlock: ({ tex }) => formula(tex, true),
  mathInline: ({ tex }) => formula(tex, false),
  paragraph: ({ tokens }, around) => fill(h("p"), tokens, around),
  space: () => "",
  strong: ({ tokens }, around) => fill(h("strong"), tokens, around),
  table: ({ header, rows }, around) =>
    h(
      "div",
      { class: "table-scroll", tabindex: "0", role: "group", "aria-label": t("Table") },
      h(
        "table",
        {},
        h("thead", {}, row(header, around)),
        rows.length > 0 && h("tbody", {}, ...rows.map((cells) => row(cells, around))),
      ),
    ),
  text: ({ text, tokens }, around) =>
    tokens ? fill(document.createDocumentFragment(), tokens, around) : decoded(text),
};

/** The HTML within a line that models write where markdown has nothing for it; it carries no attribute. */
const TAG = /^<(br|su[bp]) ?\/?>$/;
/** Nobody lowers or raises more than so many pieces at once. */
const MAX_INSIDE = 50;

/** Where `</tag>` stands, or -1. @param {string} tag @param {any[]} tokens @param {number} from */
function endOf(tag, tokens, from) {
  const last = Math.min(tokens.length, from + MAX_INSIDE);
  for (let at = from; at < last; at += 1)
    if (tokens[at].type === "html" && tokens[at].text === `</${tag}>`) return at;
  return -1;
}

/** After these a line ends, for those who read or hear the text without its layout. */
const LINES = new Set(["blockquote", "code", "heading", "hr", "list", "list_item", "mathBlock", "paragraph", "table"]);

/**
 * Put what the tokens say into `parent`. Raises RangeError if they are nested too deep.
 * @template {Node & ParentNode} Parent
 * @param {Parent} parent @param {any[]} tokens @param {Around} around
 * @returns {Parent}
 */
function fill(parent, tokens, around) {
  if (around.depth > MAX_DEPTH) throw new RangeError("nested too deep");
  const inside = { ...around, depth: around.depth + 1 };
  for (let at = 0; at < tokens.length; at += 1) {
    const token = tokens[at];
    const [, tag] = (token.type === "html" && token.text.match(TAG)) || [];
    const end = tag && tag !== "br" ? endOf(tag, tokens, at + 1) : -1;
    if (tag === "br") parent.append(h("br"));
    else if (end > 0) {
      parent.append(fill(h(tag), tokens.slice(at + 1, end), inside));
      at = end;
    } else parent.append(MAKE[token.type](token, inside));
    if (token.block || LINES.has(token.type)) parent.append("\n");
  }
  return parent;
}

/** @param {any[]} cells @param {Around} around */
function row(cells, around) {
  const element = h("tr");
  for (const { tokens, header, align } of cells)
    element.append(fill(h(header ? "th" : "td", { align }), tokens, around), "\n");
  return element;
}

/** Where an address leads; null if it is none of another page or a person. @param {string} address */
function target(address) {
  try {
    const url = new URL(address);
    return LINKED.has(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

/**
 * A link within a link, or to nowhere, is its text.
 * @param {string} address @param {any[]} tokens @param {Around} around
 */
function link(address, tokens, around) {
  const url = around.inLink ? null : target(address);
  if (!url) return fill(document.createDocumentFragment(), tokens, around);
  const { href } = url;
  const place = url.protocol === "mailto:" ? url.pathname : url.host;
  const rest = { target: "_blank", rel: "noopener noreferrer nofollow", title: href };
  const element = fill(h("a", { href, ...rest }), tokens, { ...around, inLink: true });
  const shown = (element.textContent || "").trim();
  if (![href, href.replace(/\/$/, ""), place].includes(shown))
    element.append(" ", h("span", { class: "link-target", text: `(${place})` }));
  return element;
}

/**
 * @param {any[]} tokens of marked's lexer, and the two of mathematics that markdown.js gives it
 * @param {boolean} finished a code block that is still being written is not coloured yet if it is long
 * @returns {DocumentFragment}
 */
export function elements(tokens, finished) {
  const fragment = fill(document.createDocumentFragment(), tokens, { finished, depth: 0 });
  for (const child of fragment.children) /** @type {HTMLElement} */ (child).dir ||= "auto";
  return fragment;
}
