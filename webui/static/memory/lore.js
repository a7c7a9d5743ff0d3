// @ts-check
/**
 * The lore book of a session: texts that bots are sent while one of their keys stands in the last messages.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";
import { openDialog, dialogButton } from "../overlays/dialogs.js";

const MAX_ENTRIES = 100;
const MAX_KEYS = 10;

/** @param {Store} store @param {Room} room */
export function openLore(store, room) {
  const id = store.state.session?.id;
  /** @type {{keys: string[], text: string}[]} */
  const entries = (store.state.session?.lore || []).map((entry) => ({ ...entry }));
  const list = h("div", { class: "lore" });
  const more = h("button", { type: "button", class: "button", text: t("Add an entry"), on: { click: add } });
  const dialog = openDialog(
    t("Lore book"),
    [
      h("p", {
        class: "help",
        text: t("What the bots are to know of a thing when it is spoken of: the text is sent while one of its keys stands in the last eight messages."),
      }),
      list,
      more,
    ],
    { wide: true, actions: [dialogButton(t("Close"), "primary", () => dialog.close())] },
  );

  /** Kept as it is typed; of another session by now, not at all. */
  function change() {
    if (store.state.session?.id === id) room.change({ lore: entries.map((entry) => ({ ...entry })) });
    more.disabled = entries.length >= MAX_ENTRIES;
  }

  function add() {
    const entry = { keys: [], text: "" };
    entries.push(entry);
    const element = row(entry);
    list.append(element);
    element.querySelector("input").focus();
    change();
  }

  /** @param {{keys: string[], text: string}} entry */
  function row(entry) {
    const keys = h("input", {
      type: "text",
      class: "text-input",
      dir: "auto",
      maxlength: "1000",
      autocomplete: "off",
      placeholder: t("lamp, lighthouse"),
      on: {
        input: () => {
          const words = keys.value.split(",").map((word) => word.trim().slice(0, 100));
          entry.keys = words.filter(Boolean).slice(0, MAX_KEYS);
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
    const element = h(
      "fieldset",
      { class: "lore-entry" },
      h("label", { class: "stacked" }, h("span", { class: "label", text: t("Keys, with commas") }), keys),
      h("label", { class: "stacked" }, h("span", { class: "label", text: t("Text") }), text),
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
