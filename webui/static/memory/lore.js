// @ts-check
/**
 * Lore books: texts that are sent while one of their keys stands in the last messages. Of a session, and of a
 * bot as its card brought it; what else an entry of a card has is kept.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";
import { openDialog, dialogButton } from "../overlays/dialogs.js";

/** As the server takes them: how many entries, keys of each, and characters of a key. */
const OF_SESSION = { entries: 100, keys: 10, characters: 100 };
const OF_BOT = { entries: 2_000, keys: 500, characters: 1_000 };
/** What stands between commas; those of a regular expression are its own. */
const KEY = /(?:^|,)\s*(\/(?:\\.|[^/\\])+\/[a-z]*(?=\s*(?:,|$))|[^,]*)/g;

/** @typedef {{keys: string[], text: string, always?: boolean}} Entry `always`: where it can be set */

/** @param {Store} store @param {Room} room */
export function openLore(store, room) {
  const id = store.state.session?.id;
  openEntries(
    (store.state.session?.lore || []).map((entry) => ({ ...entry })),
    t("What the bots are to know of a thing when it is spoken of: the text is sent while one of its keys stands in the last eight messages."),
    () => ({ keys: [], text: "" }),
    // Kept as it is typed; of another session by now, not at all.
    (lore) => store.state.session?.id === id && room.change({ lore }),
    OF_SESSION,
  );
}

/**
 * The book of a bot, to which `draft.lore_book` is set when it is changed.
 * @param {any} book as it is now, of a character card; null: none
 * @param {{lore_book?: any}} draft @param {() => void} changed
 */
export function openBotLore(book, draft, changed) {
  /** What there was before. @type {Map<Entry, any>} */
  const cards = new Map();
  for (const card of book?.entries || [])
    cards.set({ keys: card.keys, text: card.content, always: card.constant === true }, card);
  openEntries(
    [...cards.keys()],
    t("What it alone is to know of a thing when it is spoken of: the text is sent while one of its keys stands in the last messages."),
    () => ({ keys: [], text: "", always: false }),
    (entries) => {
      const all = entries.map((entry) => {
        const card = cards.get(entry) || { enabled: true, insertion_order: 100, extensions: {} };
        const constant = entry.always === (card.constant === true) ? {} : { constant: entry.always };
        return { ...card, keys: entry.keys, content: entry.text, ...constant };
      });
      draft.lore_book = all.length || book ? { extensions: {}, ...book, entries: all } : null;
      changed();
    },
    OF_BOT,
  );
}

/**
 * @param {Entry[]} entries changed in place @param {string} help
 * @param {() => Entry} fresh one more
 * @param {(entries: Entry[]) => void} changed with those that say something
 * @param {typeof OF_BOT} most
 */
function openEntries(entries, help, fresh, changed, most) {
  const list = h("div", { class: "lore" });
  const more = h("button", { type: "button", class: "button", text: t("Add an entry"), on: { click: add } });
  const dialog = openDialog(t("Lore book"), [h("p", { class: "help", text: help }), list, more], {
    wide: true,
    actions: [dialogButton(t("Close"), "primary", () => dialog.close())],
  });

  function change() {
    changed(entries.filter(({ keys, text }) => keys.length || text));
    more.disabled = entries.length >= most.entries;
  }

  function add() {
    const entry = fresh();
    entries.push(entry);
    const element = row(entry);
    list.append(element);
    element.querySelector("input").focus();
    more.disabled = entries.length >= most.entries;
  }

  /** @param {Entry} entry */
  function row(entry) {
    const keys = h("input", {
      type: "text",
      class: "text-input",
      dir: "auto",
      maxlength: String(most.keys * most.characters),
      autocomplete: "off",
      placeholder: t("lamp, lighthouse"),
      on: {
        input: () => {
          const words = [...keys.value.matchAll(KEY)].map(([, key]) => key.trim().slice(0, most.characters));
          entry.keys = words.filter(Boolean).slice(0, most.keys);
          change();
        },
      },
    });
    keys.value = entry.keys.join(", ");
    const text = h("textarea", {
      class: "text-input",
      rows: "3",
      dir: "auto",
      maxlength: "50000",
      on: {
        input: () => {
          entry.text = text.value;
          change();
        },
      },
    });
    text.value = entry.text;
    const always = h("input", {
      type: "checkbox",
      on: {
        change: () => {
          entry.always = always.checked;
          change();
        },
      },
    });
    always.checked = Boolean(entry.always);
    const element = h(
      "fieldset",
      { class: "lore-entry" },
      h("label", { class: "stacked" }, h("span", { class: "label", text: t("Keys, with commas") }), keys),
      h("label", { class: "stacked" }, h("span", { class: "label", text: t("Text") }), text),
      entry.always !== undefined && h("label", { class: "choice" }, always, h("span", { text: t("Always sent") })),
      h("button", {
        type: "button",
        class: "text-button",
        text: t("Remove this entry"),
        on: {
          click: () => {
            entries.splice(entries.indexOf(entry), 1);
            element.remove();
            more.focus();
            change();
          },
        },
      }),
    );
    return element;
  }

  list.append(...entries.map(row));
  if (!entries.length) add();
}
