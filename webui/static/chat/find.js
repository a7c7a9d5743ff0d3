// @ts-check
/**
 * Find in this chat: a bar above the transcript that goes from message to message, of all of them and not
 * only of those on the page, and marks the places. Also where a search in all sessions leads.
 * @import { Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { byId, h, iconButton } from "../base/dom.js";
import { isComposing, isTouchOnly } from "../base/input.js";
import { t } from "../base/language.js";

const MARKED = "found";
const MARKED_NOW = "found-now";

/** Made once. @type {{ask: (query: string, match: string) => void} | null} */
let bar = null;

/**
 * @param {Store} store @param {Room} room
 * @param {{reveal: (id: string) => void, focus: (id: string) => void}} transcript
 * @param {string} [query] what to begin with @param {string} [match] the message to begin at; else the latest
 */
export async function openFind(store, room, transcript, query = "", match = "") {
  bar ||= createBar(store, room, transcript);
  const { session } = store.state;
  const reading = room.whole();
  if (query && (!(await reading) || store.state.session?.id !== session?.id)) return;
  bar.ask(query, match);
}

/** @param {Store} store @param {Room} room @param {Parameters<typeof openFind>[2]} transcript */
function createBar(store, room, transcript) {
  const input = /** @type {HTMLInputElement} */ (
    h("input", { type: "search", "aria-label": t("Find in this chat"), placeholder: t("Find"), autocomplete: "off" })
  );
  const count = h("span", { class: "find-count tabular", role: "status" });
  const back = iconButton("arrow-up", t("The match before (Shift Enter)"), () => step(-1));
  const on = iconButton("arrow-down", t("The next match (Enter)"), () => step(1));
  const elsewhere = h("button", { type: "button", class: "text-button", text: t("Show it"), on: { click: showVersion } });
  const element = h(
    "search",
    { class: "find", "aria-label": t("Find in this chat") },
    input,
    count,
    elsewhere,
    back,
    on,
    iconButton("x", t("Close"), close),
  );
  /** @type {Message[]} */
  let hits = [];
  /** @type {string[]} */
  let words = [];
  let at = 0;
  let shown = "";
  /** What a search of all sessions asked for: its words may stand in different messages. */
  let given = "";
  /** The message to begin at. */
  let wanted = "";
  let redraw = 0;
  /** @type {string | null | undefined} */
  let opened = "";

  /** What is said now, and where the words are in it. @param {boolean} goes to the match at hand */
  function look(goes) {
    const current = hits[at]?.id || wanted;
    ({ hits, words } = found(room.path(), input.value, input.value === given));
    const same = hits.findIndex((message) => message.id === current);
    at = same >= 0 ? same : Math.max(0, hits.length - 1); // the latest first
    const inVersions = !hits.length && words.length > 0 && inOthers();
    elsewhere.hidden = !inVersions;
    count.textContent = hits.length
      ? t("{number} of {all}", { number: at + 1, all: hits.length })
      : inVersions
        ? t("In another version.")
        : !words.length
          ? ""
          : store.state.session?.messages.some(({ far }) => far)
            ? t("Loading…")
            : t("Not found");
    for (const button of [back, on]) button.disabled = hits.length < 2;
    if (goes && hits.length) {
      shown = hits[at].id;
      transcript.reveal(shown, uncover);
    }
    mark();
  }

  /** Of a long message only a part is in sight, and this bar lies over some of it. */
  function uncover() {
    const first = CSS.highlights?.get(MARKED_NOW)?.values().next().value;
    if (!first?.startContainer.isConnected) return;
    const scroller = byId("transcript");
    const { top, bottom, height } = scroller.getBoundingClientRect();
    const box = first.getBoundingClientRect();
    if (box.top >= element.getBoundingClientRect().bottom && box.bottom <= bottom) return;
    scroller.scrollTop += box.top - top - height / 2;
  }

  /** The last message of another version of the chat that has the words. */
  function inOthers() {
    const all = found(store.state.session?.messages || [], input.value, input.value === given).hits;
    return all.find((message) => message.id === wanted) || all.at(-1);
  }

  async function showVersion() {
    const message = inOthers();
    if (message && (await room.show(message.id))) look(true);
    input.focus();
  }

  /** @param {number} by */
  function step(by) {
    if (!hits.length) return;
    at = (at + by + hits.length) % hits.length;
    look(true);
  }

  function mark() {
    if (!CSS.highlights) return;
    const every = [];
    const now = [];
    for (const text of byId("messages").querySelectorAll(".md")) {
      const isNow = text.closest(".message")?.getAttribute("data-id") === shown;
      (isNow ? now : every).push(...places(/** @type {HTMLElement} */ (text), words));
    }
    CSS.highlights.set(MARKED, new Highlight(...every));
    CSS.highlights.set(MARKED_NOW, new Highlight(...now));
  }

  const later = () => {
    cancelAnimationFrame(redraw);
    redraw = requestAnimationFrame(mark);
  };
  const observer = new MutationObserver(later);
  store.on(["session", "live", "viewLeaf"], () => {
    if (!element.isConnected) return;
    if (store.state.session?.id !== opened) close();
    else look(false);
  });
  store.on(["texts"], () => element.isConnected && look(!hits.length)); // more of them have come

  function close() {
    const hadFocus = element.contains(document.activeElement);
    observer.disconnect();
    cancelAnimationFrame(redraw);
    CSS.highlights?.delete(MARKED);
    CSS.highlights?.delete(MARKED_NOW);
    element.remove();
    if (!hadFocus || store.state.session?.id !== opened) return;
    if (hits.length && shown) transcript.focus(shown);
    else byId(isTouchOnly() ? "transcript" : "text").focus(); // nothing was found: no focus is lost
  }

  input.addEventListener("input", () => {
    hits = []; // the latest of the new ones first
    wanted = "";
    look(true);
  });
  element.addEventListener("keydown", (event) => {
    if (isComposing(event)) return;
    if (event.key === "Escape") close();
    else if (event.key === "Enter" && event.target === input) step(event.shiftKey ? -1 : 1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return {
    /** @param {string} query @param {string} match */
    ask(query, match) {
      if (query && !found(store.state.session?.messages || [], query, true).hits.length) return; // in the title alone
      given = query;
      wanted = match;
      opened = store.state.session?.id;
      byId("main").append(element);
      observer.observe(byId("messages"), { childList: true, subtree: true, characterData: true });
      if (query) input.value = query;
      hits = [];
      shown = "";
      look(Boolean(query));
      input.focus();
      input.select();
    },
  };
}

/**
 * The messages that hold the text as it stands; if none does, those with all of its words.
 * @param {Message[]} messages @param {string} query
 * @param {boolean} [scattered] else those with any of them
 */
export function found(messages, query, scattered = false) {
  const whole = folded(query.trim());
  if (!whole) return { hits: [], words: [] };
  const holding = (words) =>
    messages.filter((message) => {
      const text = folded(message.text);
      return words.every((word) => text.includes(word));
    });
  const hits = holding([whole]);
  const words = whole.split(/\s+/);
  if (hits.length || words.length === 1) return { hits, words: [whole] };
  const all = holding(words);
  if (all.length || !scattered) return { hits: all, words };
  const some = new Set(words.flatMap((word) => holding([word])));
  return { hits: messages.filter((message) => some.has(message)), words };
}

/** Without case; as long as the text, so that places in it are places in the text. @param {string} text */
function folded(text) {
  const lower = text.toLowerCase();
  return lower.length === text.length
    ? lower
    : text.replace(/[^]/g, (one) => (one.toLowerCase().length === 1 ? one.toLowerCase() : one));
}

/** Where words stand in what an element shows, across its parts. @param {HTMLElement} element
 * @param {string[]} words @returns {Range[]} */
function places(element, words) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const nodes = [];
  const ends = [];
  let text = "";
  while (walker.nextNode()) {
    nodes.push(walker.currentNode);
    text += walker.currentNode.nodeValue;
    ends.push(text.length);
  }
  const lower = folded(text);
  const ranges = [];
  for (const word of words) {
    let node = 0;
    for (let from = lower.indexOf(word); from >= 0; from = lower.indexOf(word, from + word.length)) {
      const range = document.createRange();
      while (ends[node] <= from) node += 1;
      range.setStart(nodes[node], from - (ends[node - 1] || 0));
      let last = node;
      while (ends[last] < from + word.length) last += 1;
      range.setEnd(nodes[last], from + word.length - (ends[last - 1] || 0));
      ranges.push(range);
    }
  }
  return ranges;
}
