// @ts-check
/**
 * The list of sessions at the left: what is pinned, the folders, the rest by age; with search, and what can
 * be done with each. Several at once are selected and worked on by selecting.js, loaded then.
 * @import { FileProblem, State, Summary } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { byId, h, icon, iconButton, monogram } from "../base/dom.js";
import { ageGroup } from "../base/format.js";
import { t, tn, together } from "../base/language.js";
import { botOf, pictureOf } from "../session/store.js";
import { closedAsKept, closedFolders, rememberClosed } from "./closed-folders.js";

const SEARCH_DELAY_MS = 150;
/** More rows than this wait behind a button. */
const ROWS = 100;
const PROBLEMS_SHOWN = 5;
const LONG_PRESS_MS = 500;
/** A finger that moves no farther rests. */
const STILL_PX = 10;
/** What stands before the first word that was found, but for the last dozen letters: a row is short. */
const LONG_BEFORE = /^.*\s(?=.{12,}$)/su;

/**
 * @typedef {import("./library.js").Library & {room: import("../session/room.js").Room,
 *   reloadBots: () => Promise<void>,
 *   open: (id: string) => void, openNew: () => Promise<void>, create: () => void}} Page
 * @typedef {{name: string, sessions: Summary[], folder?: boolean}} Part
 */

/** @param {Store} store @param {Page} page */
export function createSessionList(store, page) {
  const list = byId("sessions");
  const search = /** @type {HTMLInputElement} */ (byId("search"));
  let rows = ROWS;
  /** What the list was last built from; most changes of a session do not concern it. @type {any[]} */
  let built = [];
  /**
   * The rows on the page, by session: one that says the same stays.
   * @type {Map<string, [string, HTMLElement]>}
   */
  let made = new Map();

  const selecting = async () => (await import("./selecting.js")).selecting(store, list, page);
  const arranging = async () => import("./arranging.js");

  /** @param {Summary} session */
  function rowOf(session) {
    const { state } = store;
    const { selected, words } = state;
    const is = [session.id === state.session?.id, selected?.has(session.id)];
    const says = JSON.stringify([session, words, !selected, ...is]);
    const old = made.get(session.id);
    return old?.[0] === says ? old : /** @type {[string, HTMLElement]} */ ([says, row(store, session, page)]);
  }

  function update() {
    const { state } = store;
    const { sessions, query, problems, bots, loading, selected } = state;
    const from = [sessions, query, problems, bots, loading, state.session?.id, rows, selected, closedAsKept()];
    if (from.every((value, at) => value === built[at])) return;
    if (bots !== built[3]) made.clear();
    built = from;
    if (!query) tags.hidden = !sessions.some((session) => session.tags?.length);
    const shown = new Map();
    const closed = query ? [] : closedFolders();
    const groups = [];
    let hidden = 0;
    for (const { name, sessions: all, folder } of parts(state)) {
      const isClosed = folder && closed.includes(name);
      const some = isClosed ? [] : all.slice(0, Math.max(0, rows - shown.size));
      hidden += isClosed ? 0 : all.length - some.length;
      for (const session of some) shown.set(session.id, rowOf(session));
      if (!some.length && !isClosed) continue;
      groups.push(folder ? folderHead(name, all.length, !isClosed) : h("h2", { class: "group-name", text: name }));
      const items = some.map(({ id }) => shown.get(id)[1]);
      if (some.length) groups.push(h("ul", { class: "session-group", "aria-label": name }, ...items));
    }
    made = shown;
    const focused = list.contains(document.activeElement) ? /** @type {any} */ (document.activeElement) : null;
    const spot = focused?.closest("[data-key]")?.dataset.key;
    list.replaceChildren(
      ...groups,
      ...(hidden ? [moreButton(hidden, showMore)] : []),
      ...(sessions.length || loading ? [] : [emptyNote(query)]),
      ...(problems.length ? [problemNote(problems)] : []),
    );
    if (spot && !focused.isConnected)
      list.querySelector(`[data-key="${CSS.escape(spot)}"]`)?.querySelector(ENTRIES)?.focus({ preventScroll: true });
    else focused?.focus({ preventScroll: true });
  }

  /** @param {string} name @param {number} number @param {boolean} open */
  function folderHead(name, number, open) {
    const toggle = () => {
      const others = closedFolders().filter((one) => one !== name);
      rememberClosed(open ? [...others, name] : others);
      update();
    };
    const more = iconButton(
      "ellipsis",
      t("Actions for the folder {name}", { name }),
      async () => (await arranging()).openFolderMenu(name, more, page),
      { class: "session-more", "aria-haspopup": "menu" },
    );
    return h(
      "h2",
      { class: "group-name folder", data: { key: `/${name}` } },
      h(
        "button",
        { type: "button", class: "folder-name", "aria-expanded": String(open), on: { click: toggle } },
        icon(open ? "chevron-down" : "chevron-right"),
        h("span", { dir: "auto", text: name }),
        h("span", { class: "folder-number tabular", text: number }),
      ),
      more,
    );
  }

  function showMore() {
    rows += ROWS;
    update();
  }

  const tool = (text, onClick, extra = {}) =>
    h("button", { type: "button", class: "text-button", text, on: { click: onClick }, ...extra });
  const tags = tool(t("Tags"), async () => (await arranging()).openTagMenu(tags, store, page), {
    "aria-haspopup": "menu",
    hidden: true,
  });
  list.before(
    h(
      "div",
      { id: "list-tools", class: "list-tools" },
      tool(t("Select"), async () => (await selecting()).start()),
      tags,
      tool(t("Trash"), async () => (await import("./trash.js")).openTrash(page), { "aria-haspopup": "dialog" }),
    ),
  );
  searchAsTyped(search, list, page);
  moveByArrows(list, search);
  selectByHand(list, store, selecting);
  byId("new-session").addEventListener("click", page.create);
  store.on(["sessions", "bots", "session", "query", "problems", "loading", "selected"], update);

  return {
    focusSearch() {
      search.focus();
      search.select();
    },
  };
}

/** What the arrow keys go through. */
const ENTRIES = ".session-link, .session-check, .folder-name";

/** The list in parts, each under its heading. @param {State} state @returns {Part[]} */
function parts({ sessions, query }) {
  if (query) return [{ name: t("Found"), sessions }];
  /** @type {Map<string, Part>} */
  const folders = new Map();
  /** @type {Part[]} */
  const others = [{ name: t("Pinned"), sessions: [] }];
  for (const session of sessions) {
    const { pinned, folder } = session;
    if (folder && !pinned) {
      if (!folders.has(folder)) folders.set(folder, { name: folder, sessions: [], folder: true });
      folders.get(folder)?.sessions.push(session);
      continue;
    }
    const name = pinned ? others[0].name : ageGroup(session.updated);
    const last = pinned ? others[0] : others[others.length - 1];
    if (last.name === name) last.sessions.push(session);
    else others.push({ name, sessions: [session] });
  }
  const [pins, ...ages] = others;
  return [pins, ...[...folders.values()].sort((a, b) => a.name.localeCompare(b.name)), ...ages];
}

/** @param {Store} store @param {Summary} session @param {Page} page */
function row(store, session, page) {
  const { state } = store;
  const active = session.id === state.session?.id;
  const { selected, words } = state;
  const title = h("span", { class: "session-title", dir: "auto", title: session.title });
  title.append(...marked(session.title, words));
  const text = [title, subline(state, session)];
  if (selected) {
    const check = h("input", { type: "checkbox", class: "session-check" });
    check.checked = selected.has(session.id);
    return h(
      "li",
      { class: `session is-selecting ${active ? "is-active" : ""}`, data: { key: session.id } },
      h("label", { class: "session-link-like" }, check, h("span", { class: "session-text" }, ...text)),
    );
  }
  const link = h(
    "a",
    {
      class: "session-link",
      href: `./#${session.id}`, // not "#…": axe would take it for a link that skips
      "aria-current": active ? "page" : null,
      on: {
        click: (event) => {
          event.preventDefault();
          page.open(session.id);
        },
      },
    },
    ...text,
  );
  const open = () => menu(session, more, store, page);
  const more = iconButton("ellipsis", t("Actions for {title}", { title: session.title }), open, {
    class: "session-more",
    "aria-haspopup": "menu",
  });
  return h(
    "li",
    {
      class: `session ${active ? "is-active" : ""}`,
      data: { key: session.id },
      on: {
        contextmenu: (event) => {
          event.preventDefault();
          if (event.pointerType !== "touch") open(); // a long press selects
        },
      },
    },
    link,
    session.writing && h("span", { class: "writing-dot" }),
    more,
  );
}

/** Who is in it, and what there is to say of it. @param {State} state @param {Summary} session */
function subline(state, session) {
  const marks = session.bots.slice(0, 5).map((id) => {
    const bot = botOf(state, id);
    return bot && monogram(bot.name, bot.color, "tiny", pictureOf(bot));
  });
  const writer = session.writing && botOf(state, session.writing.bot);
  const note = h("span", { class: "session-note", dir: "auto" });
  const said = session.writing
    ? t("{name} is writing", { name: writer?.name || t("Somebody") })
    : tn("{count} message", "{count} messages", session.num_messages);
  const tags = (session.tags || []).map((tag) => `#${tag}`).join(" ");
  if (session.snippet) {
    const [before, ...rest] = marked(session.snippet, state.words);
    note.append(rest.length && typeof before === "string" ? before.replace(LONG_BEFORE, "… ") : before, ...rest);
  }
  else note.append(tags ? `${tags} · ${said}` : said);
  return h("span", { class: "session-sub" }, ...marks, note);
}

/** A text with the words that were searched for marked. @param {string} text @param {string[]} words */
function marked(text, words) {
  if (!words.length) return [text];
  const any = words.map((word) => word.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join("|");
  const pieces = text.split(new RegExp(`(${any})`, "giu"));
  return pieces.map((piece, at) => (at % 2 ? h("mark", { text: piece }) : piece)).filter((piece) => piece !== "");
}

/** @param {Summary} session @param {HTMLElement} anchor @param {Store} store @param {Page} page */
async function menu(session, anchor, store, page) {
  (await import("./session-menu.js")).openSessionMenu(session, anchor, store, page);
}

/** @param {number} hidden @param {() => void} onClick */
function moreButton(hidden, onClick) {
  const text = tn("Show one more", "Show {count} more", hidden);
  return h("button", { type: "button", class: "text-button show-more", text, on: { click: onClick } });
}

/** @param {string} query */
function emptyNote(query) {
  const text = query ? t("No session has these words.") : t("Your sessions will be listed here.");
  return h("p", { class: "empty", text });
}

/** Files that are damaged or wait. @param {FileProblem[]} problems */
function problemNote(problems) {
  const sentences = problems.slice(0, PROBLEMS_SHOWN).map((problem) => `${problem.file} ${problem.message}`);
  const others = problems.length - PROBLEMS_SHOWN;
  if (others > 0) sentences.push(tn("And one other file.", "And {count} other files.", others));
  return h("p", { class: "problem" }, icon("triangle-alert"), h("span", { text: together(...sentences) }));
}

/** @param {HTMLInputElement} search @param {HTMLElement} list @param {Page} page */
function searchAsTyped(search, list, page) {
  let timer = 0;
  search.addEventListener("input", () => {
    search.scrollIntoView({ block: "start" }); // above a keyboard there is room for little else
    clearTimeout(timer);
    timer = window.setTimeout(() => page.search(search.value.trim()), SEARCH_DELAY_MS);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && search.value) {
      search.value = "";
      page.search("");
      swallow(event); // or the drawer closes, too
    }
    if (event.key === "ArrowDown") {
      event.preventDefault();
      /** @type {any} */ (list.querySelector(ENTRIES))?.focus();
    }
  });
}

/** Up and down through the list, and from its top back to the search. @param {HTMLElement} list
 * @param {HTMLElement} search */
function moveByArrows(list, search) {
  list.addEventListener("keydown", (event) => {
    if ((event.key !== "ArrowDown" && event.key !== "ArrowUp") || event.shiftKey) return;
    const entries = /** @type {HTMLElement[]} */ ([...list.querySelectorAll(ENTRIES)]);
    const at = entries.indexOf(/** @type {any} */ (document.activeElement));
    if (at < 0) return;
    event.preventDefault();
    (entries[at + (event.key === "ArrowDown" ? 1 : -1)] || search).focus();
  });
}

/** @param {Event} event */
function swallow(event) {
  event.preventDefault();
  event.stopPropagation();
}

/**
 * Everything by which a selection begins, goes on and ends, but for its buttons. It begins with Ctrl or Shift
 * and a click, Space, Shift and an arrow, Ctrl A, or a long press.
 * @param {HTMLElement} list @param {Store} store
 * @param {() => Promise<{start: (id: string) => void, pick: (id: string, range: boolean) => void,
 *   key: (id: string, key: string) => void}>} selecting
 */
function selectByHand(list, store, selecting) {
  const idAt = (event) => event.target.closest?.(".session")?.dataset.key || "";
  list.addEventListener(
    "click",
    async (event) => {
      const id = idAt(event);
      const { ctrlKey, metaKey, shiftKey, target } = event;
      const isBox = /** @type {Element} */ (target).matches("input");
      if (!id || !(store.state.selected || ctrlKey || metaKey || shiftKey)) return;
      if (/** @type {Element} */ (target).closest(".session-more")) return;
      if (!isBox) event.preventDefault();
      event.stopPropagation();
      (await selecting()).pick(id, shiftKey);
    },
    true,
  );
  list.addEventListener("keydown", async (event) => {
    const id = idAt(event);
    const { key, shiftKey } = event;
    const all = (event.ctrlKey || event.metaKey) && key.toLowerCase() === "a";
    const isOnLink = /** @type {Element} */ (event.target).matches(".session-link");
    const begins = all || (key === " " && isOnLink) || (shiftKey && /^Arrow(Up|Down)$/.test(key));
    if (!(begins && id) && !(store.state.selected && (key === "Escape" || key === "Delete"))) return;
    event.preventDefault();
    event.stopPropagation();
    (await selecting()).key(id, all ? "all" : key);
  });
  let timer = 0;
  let from = { clientX: 0, clientY: 0 };
  list.addEventListener("pointermove", ({ clientX, clientY }) => {
    if (Math.hypot(clientX - from.clientX, clientY - from.clientY) > STILL_PX) clearTimeout(timer);
  });
  list.addEventListener("pointerdown", (event) => {
    const id = idAt(event);
    from = event;
    clearTimeout(timer);
    if (event.pointerType !== "touch" || !id || store.state.selected) return;
    timer = window.setTimeout(async () => {
      const once = { capture: true, once: true };
      document.addEventListener("click", swallow, once); // where the finger leaves, something else lies by then
      document.addEventListener("pointerdown", () => document.removeEventListener("click", swallow, true), once);
      (await selecting()).start(id);
    }, LONG_PRESS_MS);
  });
  for (const end of ["pointerup", "pointercancel", "scroll"])
    list.addEventListener(end, () => clearTimeout(timer), { passive: true });
}
