// @ts-check
/**
 * The map of a chat: every version of every message as a tree of lines, with search; it leads to any of them,
 * names branches and puts two side by side. Of thousands of lines only those in sight are elements.
 * @import { Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 * @import { Line, Tree } from "../session/branches.js"
 */

import { h, icon, iconButton, monogram, setText } from "../base/dom.js";
import { messageTime } from "../base/format.js";
import { isComposing } from "../base/input.js";
import { t, tn } from "../base/language.js";
import { branchOf, endOf, mapLines, openFor, treeOf } from "../session/branches.js";
import { botOf, nameOf, pictureOf } from "../session/store.js";
import { dialogButton, openDialog, promptDialog } from "../overlays/dialogs.js";
import { toast } from "../overlays/toast.js";
import { compareBranches } from "./compare-branches.js";
import { found } from "../chat/find.js";
import { USER_COLOR } from "../chat/transcript.js";

/** Lines kept ready above and below those in sight. */
const AHEAD = 8;
const TEXT = 160;
const MAX_LABEL = 60;
/** Deeper ones are no further to the side. */
const MAX_INDENTS = 8;

/** Where one was before one jumped. @type {{session: string, leaf: string, message: string} | null} */
let before = null;
/** The map that is open. @type {{refresh: () => void} | null} */
let open = null;
let listens = false;

/**
 * @param {Store} store @param {Room} room
 * @param {{reveal: (id: string) => void, focus: (id: string) => void}} transcript
 */
export async function openTimeline(store, room, transcript) {
  if (!(await room.whole())) return;
  if (!store.state.session?.messages.length) {
    toast(t("There is nothing to map yet: say something first."));
    return;
  }
  if (!listens) store.on(["session", "viewLeaf"], () => open?.refresh());
  listens = true;
  createMap(store, room, transcript);
}

/** @param {Store} store @param {Room} room @param {Parameters<typeof openTimeline>[2]} transcript */
function createMap(store, room, transcript) {
  /** @type {Tree} */
  let tree;
  /** The path that is shown, and its ids. @type {Message[]} */
  let path = [];
  let shown = new Set();
  /** @type {Line[]} */
  let lines = [];
  /** The lines on the page, by message. @type {Map<string, {says: string, element: HTMLElement}>} */
  let drawn = new Map();
  /** What was opened or closed by hand. @type {Map<string, boolean>} */
  const byHand = new Map();
  /** The message of the line that the keys work on. */
  let active = "";
  /** Put aside to be compared with another one. */
  let aside = "";
  /** @type {string[]} */
  let hits = [];
  /** @type {string[]} */
  let words = [];

  const session = /** @type {any} */ (store.state.session).id;
  const input = h("input", { type: "search", class: "text-input", "aria-label": t("Search in the map") });
  Object.assign(input, { placeholder: t("Search"), autocomplete: "off" });
  const count = h("span", { class: "find-count tabular", role: "status" });
  const up = iconButton("arrow-up", t("The match or branch before (Shift Enter)"), () => step(-1));
  const down = iconButton("arrow-down", t("The next match or branch (Enter)"), () => step(1));
  const space = h("div", { class: "map-space" });
  const view = h(
    "div",
    { class: "map", role: "tree", tabindex: "0", "aria-label": t("Messages and their versions") },
    space,
  );
  const back = button(t("Back"), () => goBack(), "ghost at-start");
  const name = button(t("Name"), () => nameIt());
  const put = button(t("Put aside"), () => putAside());
  const compare = button(t("Compare"), () => openCompare());
  const show = button(t("Show"), () => jump(active), "primary");

  const isOpen = (id, usually) => byHand.get(id) ?? usually;
  const indexOf = (id) => lines.findIndex((line) => line.message.id === id);

  /** Take over what the session is now. @param {import("../types.js").Session} now */
  function read(now) {
    tree = treeOf(now.messages);
    path = room.path().filter((message) => tree.byId.has(message.id));
    shown = new Set(path.map((message) => message.id));
    if (!tree.byId.has(active)) active = path.at(-1)?.id || now.messages[0].id;
    if (!tree.byId.has(aside)) aside = "";
  }

  /** The session has changed: everything again. */
  function refresh() {
    const now = store.state.session;
    if (!now || now.id !== session) {
      dialog.close();
      return;
    }
    read(now);
    layOut();
    draw();
  }

  function layOut() {
    lines = mapLines(tree, shown, isOpen);
    if (indexOf(active) < 0) active = lines[0].message.id;
    search();
  }

  /** Of a line, as the styles say; to ask has all of the page's be worked out. */
  let height = 36;
  const measure = () => (height = Number(getComputedStyle(view).getPropertyValue("--line-height")) || height);

  function draw() {
    space.style.height = `${lines.length * height}px`;
    const first = Math.max(0, Math.floor(view.scrollTop / height) - AHEAD);
    const end = Math.min(lines.length, first + Math.ceil(view.clientHeight / height) + 2 * AHEAD);
    const at = indexOf(active);
    const wanted = lines.slice(first, end).map((line, index) => ({ line, index: first + index }));
    if (at < first) wanted.unshift({ line: lines[at], index: at }); // the keys are there
    if (at >= end) wanted.push({ line: lines[at], index: at });
    const old = drawn;
    drawn = new Map();
    for (const { line } of wanted) {
      const { id, label } = line.message;
      const texts = [label, notesOf(line), beginning(line.message)];
      const says = JSON.stringify([line.level, line.open, shown.has(id), words, ...texts]);
      const there = old.get(id);
      drawn.set(id, there?.says === says ? there : { says, element: row(line) });
    }
    for (const [id, { element }] of old) if (drawn.get(id)?.element !== element) element.remove();
    let place = space.firstElementChild;
    for (const { line, index } of wanted) {
      const { element } = /** @type {any} */ (drawn.get(line.message.id));
      element.style.top = `${index * height}px`;
      element.setAttribute("aria-selected", String(line.message.id === active));
      element.setAttribute("aria-posinset", line.at);
      element.setAttribute("aria-setsize", line.group.size);
      if (element === place) place = place.nextElementSibling;
      else space.insertBefore(element, place); // one that stays is never taken out: somebody may be pressing it
    }
    view.setAttribute("aria-activedescendant", `map-${active}`);
    tellPlace();
    showActions();
  }

  /** What is said of a line beside its text. @param {Line} line */
  const notesOf = ({ message, branch, others }) =>
    [
      message.id === path.at(-1)?.id && t("you are here"),
      message.pinned && t("pinned"),
      others > 0 && tn("{count} other version", "{count} other versions", others),
      branch > 1 && tn("{count} message", "{count} messages", branch),
      aside === message.id && t("put aside"),
      messageTime(message.created),
    ]
      .filter(Boolean)
      .join(" · ");

  /** @param {Line} line */
  function row(line) {
    const { message, level, open: isUnfolded } = line;
    const { state } = store;
    const bot = message.author === "user" ? null : botOf(state, message.author);
    const who = nameOf(state, message);
    const element = h(
      "div",
      {
        class: `map-line ${shown.has(message.id) ? "is-shown" : ""}`,
        id: `map-${message.id}`,
        role: "treeitem",
        "aria-level": level,
        "aria-expanded": isUnfolded === null ? null : String(isUnfolded),
        data: { id: message.id },
      },
      h("span", { class: "map-twist" }, isUnfolded !== null && icon(isUnfolded ? "chevron-down" : "chevron-right")),
      monogram(who, bot?.color || USER_COLOR, "tiny", pictureOf(bot)),
      h("span", { class: "map-name", dir: "auto", text: who }),
      message.label && h("span", { class: "map-label", dir: "auto", text: message.label }),
      h("span", { class: "map-text", dir: "auto" }, ...marked(beginning(message))),
      h("span", { class: "map-notes tabular", text: notesOf(line) }),
    );
    element.style.paddingInlineStart = `${8 + 18 * Math.min(level - 1, MAX_INDENTS)}px`;
    return element;
  }

  /** What a line shows of a text: its beginning, or the place of what is searched for.
   * @param {Message} message */
  function beginning({ id, text }) {
    const isHit = words.length > 0 && hits.includes(id);
    const lower = isHit ? text.toLowerCase() : "";
    const places = words.map((word) => lower.indexOf(word)).filter((at) => at >= 0);
    const place = places.length ? Math.min(...places) : 0;
    const from = place < TEXT / 3 ? 0 : place - 20;
    return `${from ? "…" : ""}${text.slice(from, from + TEXT).replace(/\s+/g, " ").trim()}`;
  }

  /** With what is searched for marked. @param {string} said */
  function marked(said) {
    if (!words.length) return [said];
    const any = words.map((word) => word.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join("|");
    return said.split(new RegExp(`(${any})`, "giu")).map((piece, at) => (at % 2 ? h("mark", { text: piece }) : piece));
  }

  /** @param {string} id */
  function activate(id) {
    active = id;
    const top = indexOf(id) * height;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + height > view.scrollTop + view.clientHeight) view.scrollTop = top + height - view.clientHeight;
    draw();
  }

  /** Have the line in the middle of what is seen, opened on the way there. @param {string} id */
  function centre(id) {
    for (const one of openFor(tree, shown, id)) byHand.set(one, true);
    active = id;
    layOut();
    space.style.height = `${lines.length * height}px`;
    view.scrollTop = indexOf(id) * height - view.clientHeight / 2;
    draw();
  }

  /** @param {Line} line @param {boolean} unfold */
  function fold(line, unfold) {
    byHand.set(line.message.id, unfold);
    layOut();
    activate(active);
  }

  /** @param {string} key */
  function move(key) {
    const at = indexOf(active);
    const line = lines[at];
    const page = Math.max(1, Math.floor(view.clientHeight / height) - 1);
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page };
    const to = { ...steps, Home: 0, End: lines.length - 1 }[key];
    if (to !== undefined) activate(lines[Math.max(0, Math.min(to, lines.length - 1))].message.id);
    else if (key === "ArrowRight" && line.open === false) fold(line, true);
    else if (key === "ArrowRight" && line.open) activate(lines[at + 1].message.id);
    else if (key === "ArrowLeft" && line.open) fold(line, false);
    else if (key === "ArrowLeft") {
      const above = lines.slice(0, at).findLast((other) => other.level < line.level);
      if (above) activate(above.message.id);
    } else return false;
    return true;
  }

  /** What has the words, in the order of the map; without any, where branches begin. */
  function search() {
    if (input.value.trim()) {
      const everything = mapLines(tree, shown, () => true).map(({ message }) => ({
        ...message,
        text: [message.text, nameOf(store.state, message), message.label].filter(Boolean).join("\n"),
      }));
      const all = found(everything, input.value);
      words = all.words;
      hits = all.hits.map(({ id }) => id);
    } else {
      words = [];
      const begin = lines.filter(({ others, branch, message }) => others || branch || message.label);
      hits = begin.map(({ message }) => message.id);
    }
    up.disabled = down.disabled = !hits.length;
  }

  function tellPlace() {
    const at = hits.indexOf(active);
    const place = t("{number} of {all}", { number: at + 1, all: hits.length });
    if (!words.length) setText(count, hits.length && at >= 0 ? t("Branch {place}", { place }) : "");
    else if (hits.length) setText(count, at < 0 ? tn("{count} match", "{count} matches", hits.length) : place);
    else setText(count, t("Not found"));
  }

  /** @param {number} by */
  function step(by) {
    if (!hits.length) return;
    const at = hits.indexOf(active);
    const next = at < 0 ? (by > 0 ? 0 : hits.length - 1) : (at + by + hits.length) % hits.length;
    centre(hits[next]);
  }

  function showActions() {
    const message = tree.byId.get(active);
    const other = aside || path.at(-1)?.id || "";
    setText(put, aside === active ? t("Do not compare") : t("Put aside"));
    setText(name, message?.label ? t("Rename") : t("Name"));
    compare.disabled = !other || endOf(tree, active) === endOf(tree, other);
    back.hidden = before?.session !== session;
  }

  /** @param {string} id */
  async function jump(id) {
    const here = { session, leaf: path.at(-1)?.id || "", message: path.at(-1)?.id || "" };
    dialog.close();
    if (!shown.has(id) && !(await room.show(id))) return;
    before = here;
    transcript.reveal(id);
    transcript.focus(id);
    toast(t("Here it is."), { action: t("Back"), onAction: goBack });
  }

  async function goBack() {
    dialog.close();
    const to = before;
    before = null;
    if (to?.session !== store.state.session?.id || !to) return;
    if (room.path().at(-1)?.id !== to.leaf && !(await room.show(to.leaf))) return;
    transcript.reveal(to.message);
    transcript.focus(to.message);
  }

  async function nameIt() {
    const message = tree.byId.get(active);
    if (!message) return;
    const check = (text) =>
      text.length > MAX_LABEL ? t("The name has more than {most} characters.", { most: MAX_LABEL }) : "";
    const label = await promptDialog(t("Name this branch"), t("Name"), message.label || "", t("Save"), check, true);
    if (label !== null && label !== (message.label || "")) await room.label(message, label);
    view.focus();
  }

  function putAside() {
    aside = aside === active ? "" : active;
    draw();
  }

  function openCompare() {
    const other = aside && aside !== active ? aside : path.at(-1)?.id || "";
    compareBranches(store, branchOf(tree, other), branchOf(tree, active), jump);
  }

  /** @param {string} text @param {() => void} onClick @param {string} [kind] */
  function button(text, onClick, kind = "") {
    return dialogButton(text, kind, onClick);
  }

  view.addEventListener("scroll", draw, { passive: true });
  view.addEventListener("click", (event) => {
    const line = event.target.closest(".map-line");
    if (!line) return;
    const wanted = lines[indexOf(line.dataset.id)];
    active = line.dataset.id;
    if (event.target.closest(".map-twist") && wanted.open !== null) fold(wanted, !wanted.open);
    else activate(active);
  });
  view.addEventListener("dblclick", (event) => {
    const line = event.target.closest(".map-line");
    if (line && !event.target.closest(".map-twist")) jump(line.dataset.id);
  });
  view.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") jump(active);
    else if (event.key === "F2") nameIt();
    else if (!move(event.key)) return;
    event.preventDefault();
  });
  input.addEventListener("input", () => {
    search();
    if (words.length && hits.length) centre(hits.includes(active) ? active : hits[0]);
    else draw();
  });
  input.addEventListener("keydown", (event) => {
    if (isComposing(event) || event.key !== "Enter") return;
    event.preventDefault();
    step(event.shiftKey ? -1 : 1);
  });

  const dialog = openDialog(
    t("Timeline"),
    [h("search", { class: "map-search" }, input, h("span", { class: "map-steps" }, count, up, down)), view],
    { actions: [back, name, put, compare, show], onClose: () => (open = null) },
  );
  dialog.classList.add("timeline");
  dialog.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "f") return;
    event.preventDefault();
    input.focus();
  });
  open = { refresh };
  measure();
  read(/** @type {any} */ (store.state.session));
  centre(active);
  view.focus({ preventScroll: true });
  new ResizeObserver(() => {
    measure();
    if (view.isConnected) draw();
  }).observe(view);
}
