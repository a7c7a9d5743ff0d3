// @ts-check
/**
 * Code blocks: language, Copy, wrapping, folding, and highlighting. The highlighter and each language are
 * loaded when a block first needs them; the language is the one that is written on the block, never guessed.
 */

import { announce } from "../base/announce.js";
import { h } from "../base/dom.js";
import { t } from "../base/language.js";

/** Highlighting a longer block would be felt while scrolling. */
const MAX_HIGHLIGHTED = 60_000;

/** A block with more can be folded to some of them. */
const FOLDABLE_LINES = 20;

const LANGUAGES = new Set([
  "bash",
  "c",
  "cpp",
  "csharp",
  "css",
  "diff",
  "go",
  "ini",
  "java",
  "javascript",
  "json",
  "kotlin",
  "lua",
  "markdown",
  "php",
  "python",
  "ruby",
  "rust",
  "sql",
  "swift",
  "typescript",
  "xml",
  "yaml",
]);

const ALIASES = {
  sh: "bash",
  shell: "bash",
  zsh: "bash",
  console: "bash",
  "c++": "cpp",
  h: "c",
  hpp: "cpp",
  cs: "csharp",
  patch: "diff",
  golang: "go",
  toml: "ini",
  js: "javascript",
  mjs: "javascript",
  jsx: "javascript",
  jsonc: "json",
  kt: "kotlin",
  md: "markdown",
  py: "python",
  python3: "python",
  rb: "ruby",
  rs: "rust",
  ts: "typescript",
  tsx: "typescript",
  html: "xml",
  svg: "xml",
  yml: "yaml",
};

/** @type {any} */
let highlighter = null;
/** @type {Map<string, Promise<void>>} */
const loading = new Map();

/** @param {string} language as written on the block */
function knownLanguage(language) {
  const name = language.toLowerCase();
  const real = Object.hasOwn(ALIASES, name) ? ALIASES[name] : name;
  return LANGUAGES.has(real) ? real : "";
}

/** What the highlighter finds, as elements at once; its own way would be HTML. */
class Spans {
  root = document.createDocumentFragment();
  /** @type {(DocumentFragment | HTMLElement)[]} */
  #open = [this.root];

  /** @param {string} text */
  addText(text) {
    this.#open[this.#open.length - 1].append(text);
  }

  /** @param {string} scope such as "title.function" */
  openNode(scope) {
    const span = h("span", { class: `hljs-${scope.split(".")[0]}` });
    this.#open[this.#open.length - 1].append(span);
    this.#open.push(span);
  }

  closeNode() {
    if (this.#open.length > 1) this.#open.pop();
  }

  startScope = this.openNode;
  endScope = this.closeNode;

  /** @param {Spans} other of a language within this one */
  __addSublanguage({ root }) {
    this.#open[this.#open.length - 1].append(root);
  }

  finalize() {}
  toHTML() {
    return "";
  }
}

/** @param {string} name */
async function load(name) {
  const [core, grammar] = await Promise.all([
    import("../vendor/highlight/core.min.js"),
    import(`../vendor/highlight/languages/${name}.min.js`),
  ]);
  highlighter = core.default;
  highlighter.configure({ __emitter: Spans });
  highlighter.registerLanguage(name, grammar.default);
}

/** @param {HTMLElement} element @param {string} name @param {string} source */
function paint(element, name, source) {
  const { errorRaised, _emitter } = highlighter.highlight(source, { language: name, ignoreIllegals: true });
  if (!errorRaised) element.replaceChildren(_emitter.root);
}

/**
 * Colour a block in place, at once if its language is loaded already.
 * @param {HTMLElement} element
 * @param {string} language
 */
export function highlight(element, language) {
  const name = knownLanguage(language);
  const source = element.textContent || "";
  if (!name || source.length > MAX_HIGHLIGHTED) return;
  if (highlighter?.getLanguage(name)) {
    paint(element, name, source);
    return;
  }
  if (!loading.has(name)) loading.set(name, load(name));
  loading.get(name)?.then(
    () => {
      if (element.textContent === source) paint(element, name, source);
    },
    () => loading.delete(name),
  );
}

/** @param {string} text @param {HTMLElement} button whose label says for a moment that it is done */
export async function copyText(text, button) {
  const label = button.textContent || "";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copyBySelection(text)) return;
  }
  announce(t("Copied"));
  if (label === t("Copied")) return;
  button.textContent = t("Copied");
  setTimeout(() => {
    button.textContent = label;
  }, 1500);
}

/** The older way, for pages that are served without https from another machine. @param {string} text */
function copyBySelection(text) {
  const area = h("textarea", { class: "visually-hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

/**
 * @param {string} source
 * @param {string} language as written on the block, or ""
 * @param {boolean} finished an unfinished block is still being written and is not coloured yet if it is long
 */
export function codeBlock(source, language, finished = true) {
  const code = h("code", { text: source });
  const copy = h("button", { type: "button", class: "text-button", text: t("Copy") });
  copy.addEventListener("click", () => copyText(code.textContent || "", copy));
  if (finished || source.length < 2000) highlight(code, language);
  const block = h(
    "div",
    { class: "code-block", dir: "ltr" },
    h(
      "div",
      { class: "code-head" },
      h("span", { text: language || t("text") }),
      finished && toggle(t("Wrap"), "wrapped", () => block),
      finished && source.split("\n").length > FOLDABLE_LINES && toggle(t("Fold"), "folded", () => block),
      copy,
    ),
    h("pre", { tabindex: "0", role: "group", "aria-label": [t("Code"), language].filter(Boolean).join(", ") }, code),
  );
  return block;
}

/**
 * A button that sets a data attribute of the block and takes it away.
 * @param {string} label @param {string} name @param {() => HTMLElement} block
 */
function toggle(label, name, block) {
  const button = h("button", { type: "button", class: "text-button", text: label, "aria-pressed": "false" });
  button.addEventListener("click", () => {
    const on = !(name in block().dataset);
    if (on) block().dataset[name] = "";
    else delete block().dataset[name];
    button.setAttribute("aria-pressed", String(on));
  });
  return button;
}
