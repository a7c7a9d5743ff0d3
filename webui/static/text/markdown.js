// @ts-check
/**
 * A text of markdown on the page, and how it grows. marked finds its blocks and what is in them; elements.js
 * makes elements of that.
 */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";
import { elements } from "./elements.js";
import { MathFinder, beginFormulas } from "./formula.js";
import { Marked } from "../vendor/marked/marked.esm.js";

const finder = new MathFinder();

/** @param {boolean} display */
const mathExtension = (display, name = display ? "mathBlock" : "mathInline") => ({
  name,
  level: display ? "block" : "inline",
  start: (source) => finder.start(source, display),
  tokenizer(source) {
    const found = finder.find(source, display);
    return found ? { type: name, ...found } : undefined;
  },
});

const marked = new Marked({
  extensions: [mathExtension(true), mathExtension(false)],
  gfm: true,
  breaks: true,
});

/** @param {string} text */
function plainFragment(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(h("p", { class: "plain", dir: "auto", text }));
  return fragment;
}

/**
 * Line ends as marked writes them, so that the lengths of its tokens count our characters.
 * @param {string} text
 */
const normalize = (text) => text.replace(/\r\n?/g, "\n");

/**
 * The blocks of a text. What marked cannot take (nested a thousand deep) stands as plain text.
 * @param {string} text
 */
function lex(text) {
  finder.begin();
  beginFormulas();
  try {
    return marked.lexer(text);
  } catch {
    return null;
  }
}

/**
 * Words, and what stands between them and is no mark of markdown's, of mathematics or of an address, nor the
 * end of one.
 */
const WORDS = /^[\p{L}\p{M}\p{N} ,.;:?!'"’“”–—-]*$/u;
/** The beginning of a line that will not become an entry of a list, a heading or a row of a table. */
const LINE_OF_WORDS = /^ *(?!\d+[.)] )[\p{L}\p{N}]\S* +/u;

/**
 * One text on the page that may grow. While it does, only the blocks that can still change are built again;
 * those before them stay the same elements.
 */
export class MarkdownView {
  /**
   * @param {HTMLElement} root
   * @param {(paragraph: string) => void} [onBlock] hears each finished block's text
   */
  constructor(root, onBlock = () => {}) {
    this.root = root;
    this.onBlock = onBlock;
    this.text = "";
    /** @type {{raw: string, done: boolean, nodes: any[], words: boolean}[]} blocks that can still change */
    this.open = [];
    this.frozenChars = 0;
    this.frozenBlocks = 0;
    this.growing = false;
  }

  /** Show a whole text that is not being written. @param {string} text */
  show(text) {
    if (!this.growing && this.text === text && this.root.hasChildNodes()) return;
    const source = normalize(text);
    // The elements that were built while it grew can stay, unless a link's definition came after its use.
    const settled = this.growing && source.startsWith(this.text.trimEnd()) && !/^ {0,3}\[[^\]]+\]:/m.test(source);
    if (settled) this.#update(source, true);
    if (this.growing) for (const block of this.open) this.onBlock(blockText(block));
    if (!settled) {
      const tokens = lex(source);
      this.root.replaceChildren(safely(() => tokens && elements(tokens, true), source));
    }
    Object.assign(this, { text: source, open: [], frozenChars: 0, frozenBlocks: 0, growing: false });
  }

  /** Show a text that will grow at its end. @param {string} text */
  grow(text) {
    const source = normalize(text);
    if (!this.growing || !source.startsWith(this.text)) {
      this.root.replaceChildren();
      Object.assign(this, { open: [], frozenChars: 0, frozenBlocks: 0, growing: true });
    } else if (source === this.text || this.#addWords(source)) {
      this.text = source;
      return;
    }
    this.text = source;
    this.#update(source, false);
  }

  /**
   * Where a paragraph goes on with words alone, they are put behind its text: what stands before them cannot
   * become anything else by them. False: it has to be read again. @param {string} source
   */
  #addWords(source) {
    const block = this.open.at(-1);
    const end = block?.words && block.nodes[0].lastChild;
    if (!end) return false;
    const words = source.slice(source.lastIndexOf(" ", this.text.length - 1) + 1);
    const line = block.raw.slice(block.raw.lastIndexOf("\n") + 1);
    const known = words.length - (source.length - this.text.length); // of its first word
    if (!WORDS.test(words) || /www/i.test(words) || !LINE_OF_WORDS.test(line)) return false;
    if (!end.data?.endsWith(words.slice(0, known))) return false;
    const added = words.slice(known);
    end.appendData(added);
    block.raw += added;
    return true;
  }

  /** @param {string} source @param {boolean} finished */
  #update(source, finished) {
    const tail = source.slice(this.frozenChars);
    const tokens = lex(tail) || [{ type: "paragraph", raw: tail, broken: true }];
    let at = 0;
    for (const token of tokens) {
      const known = this.open[at];
      const done = token.type !== "code" || finished || token !== tokens.at(-1);
      if (known && known.raw === token.raw && known.done === done) {
        at += 1;
        continue;
      }
      const fragment = safely(() => (token.broken ? null : elements([token], done)), token.raw);
      const fresh = [...fragment.childNodes];
      let nodes = fresh;
      if (known && known.done === done && known.nodes.length === fresh.length)
        nodes = known.nodes.map((node, index) => become(node, fresh[index]));
      else {
        const next = this.open.slice(at).flatMap((block) => block.nodes)[0] || null;
        this.root.insertBefore(fragment, next);
        for (const node of known ? known.nodes : []) node.remove();
      }
      const words = token.type === "paragraph" && token.raw[0] !== "[" && token.tokens?.at(-1)?.type === "text";
      this.open[at] = { raw: token.raw, done, nodes, words };
      at += 1;
    }
    for (const extra of this.open.splice(at)) for (const node of extra.nodes) node.remove();
    this.#freeze();
  }

  /** A list and the line below it may yet become one list, so the last two blocks (and space) stay open. */
  #freeze() {
    const solid = this.open.filter((block) => block.nodes.length);
    if (solid.length <= 2) return;
    const last = this.open.indexOf(solid[solid.length - 2]);
    for (const block of this.open.splice(0, last)) {
      this.frozenChars += block.raw.length;
      if (block.nodes.length) this.onBlock(blockText(block));
    }
  }
}

/**
 * What its maker may yet fill when something is loaded, so it must be the one on the page; a code block that
 * is being written is coloured anew with each piece.
 */
const FILLED_LATER = ".math, * > .code-block";

/**
 * Make an element on the page what `fresh` is, by changing as little as possible: what stays is not laid out
 * again and keeps its selection and how far it is scrolled. Answers the one of the two that is on the page
 * now.
 * @param {any} old @param {any} fresh
 */
function become(old, fresh) {
  if (old.isEqualNode(fresh)) return old;
  if (old.nodeType === Node.TEXT_NODE && fresh.nodeType === Node.TEXT_NODE) {
    if (fresh.data.startsWith(old.data)) old.appendData(fresh.data.slice(old.length));
    else old.data = fresh.data;
    return old;
  }
  const alike = old.cloneNode(false).isEqualNode(fresh.cloneNode(false));
  if (!alike || fresh.matches(FILLED_LATER)) {
    old.replaceWith(fresh);
    return fresh;
  }
  const before = [...old.childNodes];
  const after = [...fresh.childNodes]; // they move
  after.forEach((child, at) => (before[at] ? become(before[at], child) : old.append(child)));
  for (const extra of before.slice(after.length)) extra.remove();
  return old;
}

/** What a finished block says, for those who hear it. @param {{nodes: any[]}} block */
function blockText(block) {
  return block.nodes
    .map((node) => (node.className === "code-block" ? t("Code") : node.textContent || ""))
    .join(" ")
    .trim();
}

/** @param {() => DocumentFragment | null} make @param {string} source */
function safely(make, source) {
  try {
    return make() || plainFragment(source);
  } catch {
    return plainFragment(source);
  }
}
