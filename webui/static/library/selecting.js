// @ts-check
/**
 * Several sessions of the list at once: which are selected, and the bar that does something with them.
 * @import { Store } from "../session/store.js"
 * @import { Page } from "./session-list.js"
 */

import { announce } from "../base/announce.js";
import { byId, h, setText } from "../base/dom.js";
import { t, tn } from "../base/language.js";
import { arrange, exportTogether, openFolders, openTags, removeTogether } from "./arranging.js";

/** Made once. @type {ReturnType<typeof createSelecting> | null} */
let made = null;

/** @param {Store} store @param {HTMLElement} list @param {Page} page */
export function selecting(store, list, page) {
  made ||= createSelecting(store, list, page);
  return made;
}

/** @param {Store} store @param {HTMLElement} list @param {Page} page */
function createSelecting(store, list, page) {
  const tools = byId("list-tools");
  /** Where a range begins. */
  let anchor = "";
  const number = h("span", { class: "selected-number tabular", role: "status" });
  const button = (text, onClick, kind = "") =>
    h("button", { type: "button", class: `text-button ${kind}`, text, on: { click: onClick } });
  const chosen = () => store.state.sessions.filter((session) => store.state.selected?.has(session.id));
  const pin = button("", () => arrange(store, page, chosen(), { pinned: !allPinned() }));
  const folder = button(t("Folder"), () => openFolders(folder, store, page, chosen()));
  const doing = [
    pin,
    folder,
    button(t("Tags"), () => openTags(store, page, chosen())),
    button(t("Export"), () => exportTogether(chosen())),
    button(
      t("Delete"),
      async () => {
        const sessions = chosen();
        end();
        await removeTogether(store, page, sessions);
      },
      "danger",
    ),
  ];
  const bar = h(
    "div",
    { class: "list-tools selecting", role: "toolbar", "aria-label": t("Selected sessions") },
    h("div", { class: "selecting-row" }, number, button(t("All"), all), button(t("Done"), end)),
    h("div", { class: "selecting-row" }, ...doing),
  );
  folder.setAttribute("aria-haspopup", "menu");

  const allPinned = () => chosen().every((session) => session.pinned);

  function show() {
    const { selected } = store.state;
    if (!selected) return;
    const count = selected.size;
    setText(number, count ? tn("{count} selected", "{count} selected", count) : t("Select sessions"));
    setText(pin, count && allPinned() ? t("Unpin") : t("Pin"));
    for (const one of doing) one.disabled = !count;
  }

  /** @param {Iterable<string>} ids */
  function select(ids) {
    if (!store.state.selected) {
      tools.replaceWith(bar);
      announce(t("Selecting: Space selects, Shift and arrows select several, Escape ends it."));
    }
    store.set({ selected: new Set(ids) });
    show();
  }

  function all() {
    select(store.state.sessions.map((session) => session.id));
  }

  function end() {
    const hadFocus = bar.contains(document.activeElement);
    bar.replaceWith(tools);
    store.set({ selected: null });
    if (hadFocus) /** @type {any} */ (tools.firstElementChild).focus();
  }

  /** @param {string} id @param {boolean} range whether all from the last one on */
  function pick(id, range) {
    const ids = rows().map((row) => row.dataset.key || "");
    const selected = new Set(store.state.selected);
    const from = ids.indexOf(anchor || store.state.session?.id || "");
    const to = ids.indexOf(id);
    if (range && from >= 0 && to >= 0)
      for (const one of ids.slice(Math.min(from, to), Math.max(from, to) + 1)) selected.add(one);
    else if (!selected.delete(id)) selected.add(id);
    anchor = id;
    select(selected);
  }

  const rows = () => /** @type {HTMLElement[]} */ ([...list.querySelectorAll(".session")]);

  /** @param {string} id */
  function focus(id) {
    const row = rows().find((one) => one.dataset.key === id);
    /** @type {any} */ (row?.querySelector(".session-check"))?.focus();
  }

  store.on(["sessions"], () => {
    const { selected, sessions } = store.state;
    if (!selected) return;
    const there = sessions.map(({ id }) => id).filter((id) => selected.has(id));
    if (there.length < selected.size) store.set({ selected: new Set(there) });
    show();
  });

  return {
    /** @param {string} [id] */
    start(id) {
      anchor = id || "";
      select(id ? [id] : []);
      if (id) focus(id);
      else /** @type {any} */ (list.querySelector(".session-check"))?.focus();
    },
    pick,
    /** @param {string} id of the row that has the focus @param {string} key */
    key(id, key) {
      if (key === "Escape") {
        end();
        /** @type {any} */ (list.querySelector(`[data-key="${id}"] .session-link`))?.focus();
      } else if (key === "Delete") doing.at(-1)?.click();
      else if (key === "all") all();
      else if (key === " ") pick(id, false);
      else {
        const next = rows()[rows().findIndex((row) => row.dataset.key === id) + (key === "ArrowDown" ? 1 : -1)];
        const other = next?.dataset.key;
        if (!other) return;
        const { selected } = store.state;
        if (selected?.has(id) && selected.has(other)) select([...selected].filter((one) => one !== id)); // back
        else select([...(selected || []), id, other]);
        anchor ||= id;
        focus(other);
      }
    },
  };
}
