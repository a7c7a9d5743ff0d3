// @ts-check
/**
 * The list of sessions at the left: by age, with search, and what can be done with each.
 * @import { FileProblem, State, Summary } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { byId, h, icon, iconButton, monogram } from "../base/dom.js";
import { ageGroup, plural } from "../base/format.js";
import { botOf, pictureOf } from "../session/store.js";

const SEARCH_DELAY_MS = 150;
/** More rows than this wait behind a button. */
const ROWS = 100;
const PROBLEMS_SHOWN = 5;

/**
 * @typedef {import("./library.js").Library & {open: (id: string) => void, create: () => void}} Page
 */

/** @param {Store} store @param {Page} page */
export function createSessionList(store, page) {
  const list = byId("sessions");
  const search = /** @type {HTMLInputElement} */ (byId("search"));
  let rows = ROWS;
  /** What the list was last built from; most changes of a session do not concern it. @type {any[]} */
  let built = [];

  function update() {
    const { state } = store;
    const { sessions, query, problems, bots, loading } = state;
    const from = [sessions, query, problems, bots, loading, state.session?.id, rows];
    if (from.every((value, at) => value === built[at])) return;
    built = from;
    const focused = document.activeElement?.closest?.(".session-link")?.getAttribute("href");
    list.replaceChildren(
      ...groups(state, rows, page),
      ...(sessions.length > rows ? [moreButton(sessions.length - rows, showMore)] : []),
      ...(sessions.length || loading ? [] : [emptyNote(query)]),
      ...(problems.length ? [problemNote(problems)] : []),
    );
    if (focused)
      /** @type {any} */ (list.querySelector(`.session-link[href="${focused}"]`))?.focus({ preventScroll: true });
  }

  function showMore() {
    rows += ROWS;
    update();
  }

  searchAsTyped(search, list, page);
  moveByArrows(list, search);
  byId("new-session").addEventListener("click", page.create);
  store.on(["sessions", "bots", "session", "query", "problems", "loading"], update);

  return {
    focusSearch() {
      search.focus();
      search.select();
    },
  };
}

/** The first `rows` sessions under the headings of their age. @param {State} state @param {number} rows
 * @param {Page} page */
function groups(state, rows, page) {
  const parts = [];
  let group = "";
  let items = h("ul");
  for (const session of state.sessions.slice(0, rows)) {
    const heading = state.query ? "Found" : ageGroup(session.updated);
    if (heading !== group) {
      group = heading;
      items = h("ul", { class: "session-group", "aria-label": heading });
      parts.push(h("h2", { class: "group-name", text: heading }), items);
    }
    items.append(row(state, session, page));
  }
  return parts;
}

/** @param {State} state @param {Summary} session @param {Page} page */
function row(state, session, page) {
  const active = session.id === state.session?.id;
  const link = h(
    "a",
    {
      class: "session-link",
      href: `./#${session.id}`, // not "#…": axe would take it for a link that skips
      "aria-current": active ? "page" : null,
      on: {
        click: (event) => {
          if (event.ctrlKey || event.metaKey || event.shiftKey) return;
          event.preventDefault();
          page.open(session.id);
        },
      },
    },
    h("span", { class: "session-title", dir: "auto", text: session.title, title: session.title }),
    subline(state, session),
  );
  const more = iconButton("ellipsis", `Actions for ${session.title}`, () => menu(session, more, page), {
    class: "session-more",
    "aria-haspopup": "menu",
  });
  return h(
    "li",
    {
      class: `session ${active ? "is-active" : ""}`,
      on: {
        contextmenu: (event) => {
          event.preventDefault();
          menu(session, more, page);
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
  const text =
    session.snippet ||
    (session.writing ? `${writer?.name || "Somebody"} is writing` : plural(session.num_messages, "message"));
  return h("span", { class: "session-sub" }, ...marks, h("span", { class: "session-note", dir: "auto", text }));
}

/** @param {Summary} session @param {HTMLElement} anchor @param {Page} page */
async function menu(session, anchor, page) {
  (await import("./session-menu.js")).openSessionMenu(session, anchor, page);
}

/** @param {number} hidden @param {() => void} onClick */
function moreButton(hidden, onClick) {
  const text = `Show ${hidden} more`;
  return h("button", { type: "button", class: "text-button show-more", text, on: { click: onClick } });
}

/** @param {string} query */
function emptyNote(query) {
  const text = query ? "No session has these words." : "Your sessions will be listed here.";
  return h("p", { class: "empty", text });
}

/** Files that are damaged or wait. @param {FileProblem[]} problems */
function problemNote(problems) {
  const sentences = problems.slice(0, PROBLEMS_SHOWN).map((problem) => `${problem.file} ${problem.message}`);
  const others = problems.length - PROBLEMS_SHOWN;
  if (others > 0) sentences.push(`And ${plural(others, "other file")}.`);
  return h("p", { class: "problem" }, icon("triangle-alert"), h("span", { text: sentences.join(" ") }));
}

/** @param {HTMLInputElement} search @param {HTMLElement} list @param {Page} page */
function searchAsTyped(search, list, page) {
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = window.setTimeout(() => page.search(search.value.trim()), SEARCH_DELAY_MS);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && search.value) {
      search.value = "";
      page.search("");
      event.stopPropagation();
    }
    if (event.key === "ArrowDown") {
      event.preventDefault();
      /** @type {any} */ (list.querySelector(".session-link"))?.focus();
    }
  });
}

/** Up and down through the list, and from its top back to the search. @param {HTMLElement} list
 * @param {HTMLElement} search */
function moveByArrows(list, search) {
  list.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const links = /** @type {HTMLElement[]} */ ([...list.querySelectorAll(".session-link")]);
    const at = links.indexOf(/** @type {any} */ (document.activeElement));
    if (at < 0) return;
    event.preventDefault();
    (links[at + (event.key === "ArrowDown" ? 1 : -1)] || search).focus();
  });
}
