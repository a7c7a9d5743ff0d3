// @ts-check
/**
 * Model text to elements. The text is untrusted: HTML in it is shown as text, markdown becomes HTML, and that is
 * sanitized last against a short list of tags. Pictures are never loaded; links show where they lead. Mathematics
 * passes through as its source in <code class="math"> and is set by formula.js after that.
 */

import { codeBlock } from "./code.js";
import { h } from "./dom.js";
import { findMath, formula } from "./formula.js";
import { sanitizer } from "./sanitize.js";
import { Marked } from "./vendor/marked/marked.esm.js";

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
/** @param {string} text */
const escapeHtml = (text) => text.replace(/[&<>"']/g, (character) => escapes[character]);

/** @param {boolean} display */
const mathExtension = (display, name = display ? "mathBlock" : "mathInline") => ({
  name,
  level: display ? "block" : "inline",
  start: (source) => source.match(display ? /^ {0,3}(?:\$\$|\\\[)/m : /\$|\\\(/)?.index,
  tokenizer(source) {
    const found = findMath(source, display);
    return found ? { type: name, ...found } : undefined;
  },
  renderer: ({ tex }) => {
    const code = `<code class="math${display ? " display" : ""}">${escapeHtml(tex)}</code>`;
    return display ? `<p>${code}</p>` : code;
  },
});

const marked = new Marked({
  extensions: [mathExtension(true), mathExtension(false)],
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text, block }) => (block ? `<p>${escapeHtml(text.trim())}</p>` : escapeHtml(text)),
    image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(`Picture: ${text || "untitled"}`)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

const sanitize = sanitizer({
  ALLOWED_TAGS: [
    "a",
    "blockquote",
    "br",
    "code",
    "del",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "strong",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
  ],
  ALLOWED_ATTR: ["align", "class", "href", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ADD_URI_SAFE_ATTR: ["align", "start"],
});

/** Where a link leads, as short as it can honestly be said. @param {string} href */
function linkTarget(href) {
  try {
    const url = new URL(href);
    return url.protocol === "mailto:" ? url.pathname : url.host;
  } catch {
    return "";
  }
}

/** @param {HTMLAnchorElement} link */
function finishLink(link) {
  const href = link.getAttribute("href");
  const target = href && linkTarget(href);
  if (!href || !target) {
    link.replaceWith(...link.childNodes);
    return;
  }
  Object.assign(link, { target: "_blank", rel: "noopener noreferrer nofollow", title: href });
  const shown = (link.textContent || "").trim();
  if (shown !== href && shown !== target)
    link.append(" ", h("span", { class: "link-target", text: `(${target})` }));
}

/** @param {DocumentFragment} fragment @param {boolean} finished */
function finish(fragment, finished) {
  for (const pre of fragment.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    const language = (code?.className.match(/language-(\S+)/) || ["", ""])[1].slice(0, 30);
    pre.replaceWith(codeBlock((pre.textContent || "").replace(/\n$/, ""), language, finished));
  }
  for (const code of fragment.querySelectorAll("code.math")) {
    const display = code.classList.contains("display");
    (display ? code.parentElement || code : code).replaceWith(formula(code.textContent || "", display));
  }
  for (const link of fragment.querySelectorAll("a")) finishLink(link);
  for (const heading of fragment.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    // One level for all of them: a reply's headings lie within the page's, and may not skip a level there.
    heading.replaceWith(h("h3", { class: `heading-${heading.tagName[1]}` }, ...heading.childNodes));
  }
  for (const element of fragment.querySelectorAll("[class]")) {
    if (!element.matches(".code-block, .code-block *, .math, .link-target, h3")) element.removeAttribute("class");
  }
  for (const table of fragment.querySelectorAll("table")) {
    const frame = h("div", { class: "table-scroll", tabindex: "0", role: "group", "aria-label": "Table" });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const child of fragment.children)
    child.setAttribute("dir", child.className === "code-block" ? "ltr" : "auto");
}

/**
 * @param {any} tokens of marked's lexer
 * @param {boolean} finished
 * @returns {DocumentFragment}
 */
function toFragment(tokens, finished) {
  const fragment = sanitize(marked.parser(tokens));
  finish(fragment, finished);
  return fragment;
}

/** @param {string} text */
function plainFragment(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(h("p", { class: "plain", dir: "auto", text }));
  return fragment;
}

/** Line ends as marked writes them, so that the lengths of its tokens count our characters. @param {string} text */
const normalize = (text) => text.replace(/\r\n?/g, "\n");

/** The blocks of a text. What marked cannot take (nested a thousand deep) stands as plain text. @param {string} text */
function lex(text) {
  try {
    return marked.lexer(text);
  } catch {
    return null;
  }
}

/**
 * One text on the page that may grow. While it does, only the blocks that can still change are built again; those
 * before them stay the same elements.
 */
export class MarkdownView {
  /** @param {HTMLElement} root @param {(paragraph: string) => void} [onBlock] hears each finished block's text */
  constructor(root, onBlock = () => {}) {
    this.root = root;
    this.onBlock = onBlock;
    this.text = "";
    /** @type {{raw: string, done: boolean, nodes: ChildNode[]}[]} blocks that can still change */
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
      this.root.replaceChildren(safely(() => tokens && toFragment(tokens, true), source));
    }
    Object.assign(this, { text: source, open: [], frozenChars: 0, frozenBlocks: 0, growing: false });
  }

  /** Show a text that will grow at its end. @param {string} text */
  grow(text) {
    const source = normalize(text);
    if (!this.growing || !source.startsWith(this.text)) {
      this.root.replaceChildren();
      Object.assign(this, { open: [], frozenChars: 0, frozenBlocks: 0, growing: true });
    } else if (source === this.text) return;
    this.text = source;
    this.#update(source, false);
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
      const fragment = safely(() => (token.broken ? null : toFragment([token], done)), token.raw);
      const fresh = [...fragment.childNodes];
      let nodes = fresh;
      if (known && known.done === done && known.nodes.length === fresh.length)
        nodes = known.nodes.map((node, index) => become(node, fresh[index]));
      else {
        const next = this.open.slice(at).flatMap((block) => block.nodes)[0] || null;
        this.root.insertBefore(fragment, next);
        for (const node of known ? known.nodes : []) node.remove();
      }
      this.open[at] = { raw: token.raw, done, nodes };
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

/** What its maker may yet fill when something is loaded, so it must be the one on the page; a code block that is
 * being written is coloured anew with each piece. */
const FILLED_LATER = ".math, * > .code-block";

/**
 * Make an element on the page what `fresh` is, by changing as little as possible: what stays is not laid out again
 * and keeps its selection and how far it is scrolled. Answers the one of the two that is on the page now.
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
  [...fresh.childNodes].forEach((child, at) => (before[at] ? become(before[at], child) : old.append(child)));
  for (const extra of before.slice(fresh.childNodes.length)) extra.remove();
  return old;
}

/** What a finished block says, for those who hear it. @param {{nodes: any[]}} block */
function blockText(block) {
  return block.nodes
    .map((node) => (node.className === "code-block" ? "Code" : node.textContent || ""))
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
