// @ts-check
/**
 * The list of sessions at the left: by age, with search, and what can be done with each.
 * @import { Summary } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { byId, h, icon, iconButton, monogram } from "../base/dom.js";
import { ageGroup, plural } from "../base/format.js";
import { botOf } from "../session/store.js";
import { openMenu } from "../overlays/menu.js";

const SEARCH_DELAY_MS = 150;
/** More rows than this wait behind a button. */
const ROWS = 100;
const PROBLEMS_SHOWN = 5;

/**
 * @param {Store} store
 * @param {{open: (id: string) => void, create: () => void, rename: (session: Summary) => void,
 *   duplicate: (session: Summary) => void, remove: (session: Summary) => void,
 *   exported: (session: Summary, format: "json" | "markdown") => void,
 *   search: (query: string) => void}} page
 */
export function createSessionList(store, page) {
  const list = byId("sessions");
  const search = /** @type {HTMLInputElement} */ (byId("search"));
  let rows = ROWS;
  let timer = 0;

  /** @param {Summary} session @param {HTMLElement} anchor */
  function menu(session, anchor) {
    openMenu(anchor, `Actions for ${session.title}`, [
      { label: "Rename", icon: "pencil", onSelect: () => page.rename(session) },
      { label: "Duplicate", icon: "copy", onSelect: () => page.duplicate(session) },
      { label: "Export as JSON", icon: "file-json", onSelect: () => page.exported(session, "json") },
      { label: "Export as Markdown", icon: "file-text", onSelect: () => page.exported(session, "markdown") },
      "line",
      { label: "Delete", icon: "trash-2", danger: true, onSelect: () => page.remove(session) },
    ]);
  }

  /** @param {Summary} session */
  function subline(session) {
    const { state } = store;
    const marks = session.bots.slice(0, 5).map((id) => {
      const bot = botOf(state, id);
      return bot && monogram(bot.name, bot.color, "tiny");
    });
    const writer = session.writing && botOf(state, session.writing.bot);
    const text =
      session.snippet ||
      (session.writing ? `${writer?.name || "Somebody"} is writing` : plural(session.num_messages, "message"));
    return h("span", { class: "session-sub" }, ...marks, h("span", { class: "session-note", dir: "auto", text }));
  }

  /** @param {Summary} session */
  function row(session) {
    const active = session.id === store.state.session?.id;
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
      subline(session),
    );
    const more = iconButton("ellipsis", `Actions for ${session.title}`, () => menu(session, more), {
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
            menu(session, more);
          },
        },
      },
      link,
      session.writing && h("span", { class: "writing-dot" }),
      more,
    );
  }

  /** What the list was last built from; most changes of a session do not concern it. @type {any[]} */
  let built = [];

  function update() {
    const { sessions, query, problems, bots, loading } = store.state;
    const from = [sessions, query, problems, bots, loading, store.state.session?.id, rows];
    if (from.every((value, at) => value === built[at])) return;
    built = from;
    const focused = document.activeElement?.closest?.(".session-link")?.getAttribute("href");
    const parts = [];
    let group = "";
    let items = h("ul");
    for (const session of sessions.slice(0, rows)) {
      const heading = query ? "Found" : ageGroup(session.updated);
      if (heading !== group) {
        group = heading;
        items = h("ul", { class: "session-group", "aria-label": heading });
        parts.push(h("h2", { class: "group-name", text: heading }), items);
      }
      items.append(row(session));
    }
    if (sessions.length > rows) {
      parts.push(
        h("button", {
          type: "button",
          class: "text-button show-more",
          text: `Show ${sessions.length - rows} more`,
          on: {
            click: () => {
              rows += ROWS;
              update();
            },
          },
        }),
      );
    }
    if (!sessions.length && !store.state.loading) {
      parts.push(
        h("p", {
          class: "empty",
          text: query ? "No session has these words." : "Your sessions will be listed here.",
        }),
      );
    }
    if (problems.length) {
      parts.push(
        h(
          "p",
          { class: "problem" },
          icon("triangle-alert"),
          h("span", {
            text: [
              ...problems.slice(0, PROBLEMS_SHOWN).map((problem) => `${problem.file} ${problem.message}`),
              ...(problems.length > PROBLEMS_SHOWN
                ? [`And ${plural(problems.length - PROBLEMS_SHOWN, "other file")}.`]
                : []),
            ].join(" "),
          }),
        ),
      );
    }
    list.replaceChildren(...parts);
    if (focused)
      /** @type {any} */ (list.querySelector(`.session-link[href="${focused}"]`))?.focus({ preventScroll: true });
  }

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
  list.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const links = /** @type {HTMLElement[]} */ ([...list.querySelectorAll(".session-link")]);
    const at = links.indexOf(/** @type {any} */ (document.activeElement));
    if (at < 0) return;
    event.preventDefault();
    (links[at + (event.key === "ArrowDown" ? 1 : -1)] || search).focus();
  });
  byId("new-session").addEventListener("click", page.create);
  store.on(["sessions", "bots", "session", "query", "problems", "loading"], update);

  return {
    focusSearch() {
      search.focus();
      search.select();
    },
  };
}
