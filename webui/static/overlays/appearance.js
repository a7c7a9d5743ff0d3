// @ts-check
/**
 * How the page looks in this browser: its colours, the size of what is said, the width of the conversation;
 * and how it tells of a reply while nobody looks. What is chosen is seen at once, and remembered; early.js
 * puts it there before the first paint, css/base.css has what each means, title.js tells.
 */

import { h } from "../base/dom.js";
import { recall, remember } from "../base/storage.js";
import { openDialog } from "./dialogs.js";

/** The name it is remembered by, its heading, and the choices, the usual one as "". */
const CHOICES = /** @type {const} */ ([
  [
    "theme",
    "Colours",
    [
      ["", "As the system"],
      ["light", "Light"],
      ["dark", "Dark"],
      ["paper", "Paper"],
      ["night", "Night"],
      ["contrast", "High contrast"],
    ],
  ],
  [
    "textSize",
    "Size of the text",
    [
      ["small", "Small"],
      ["", "Usual"],
      ["large", "Large"],
      ["largest", "Largest"],
    ],
  ],
  [
    "column",
    "Width of the conversation",
    [
      ["narrow", "Narrow"],
      ["", "Usual"],
      ["wide", "Wide"],
      ["whole", "All there is"],
    ],
  ],
  [
    "notices",
    "A reply that comes while you look elsewhere",
    [
      ["", "Marks the tab's title"],
      ["on", "Notifies me, too"],
    ],
  ],
]);
const REFUSED = "The browser does not allow Parlor to notify you. Its settings for this page can.";
const UNSAFE = "Browsers allow it for addresses with https and for this machine's own only.";

export function openAppearance() {
  const refused = h("p", { class: "help wrong", role: "alert", hidden: true });

  /** @param {"theme" | "textSize" | "column" | "notices"} name @param {HTMLInputElement} input */
  async function choose(name, input) {
    remember(name, input.value);
    if (name === "notices") {
      const permission = input.value ? await window.Notification?.requestPermission() : "granted";
      refused.textContent = permission === "granted" ? "" : window.isSecureContext ? REFUSED : UNSAFE;
      refused.hidden = !refused.textContent;
      if (refused.hidden) return;
      remember(name, "");
      /** @type {any} */ (input.closest("fieldset")).querySelector("[value='']").checked = true;
    } else if (input.value) document.documentElement.dataset[name] = input.value;
    else delete document.documentElement.dataset[name];
  }

  openDialog(
    "Appearance",
    CHOICES.map(([name, heading, values]) => {
      const known = values.map(([value]) => /** @type {string} */ (value));
      const chosen = known.includes(recall(name)) ? recall(name) : "";
      return h(
        "fieldset",
        { class: "looks" },
        h("legend", { class: "label", text: heading }),
        ...values.map(([value, label]) => {
          const input = h("input", {
            type: "radio",
            name,
            value,
            "data-autofocus": name === "theme" && value === chosen,
            on: { change: () => choose(name, /** @type {HTMLInputElement} */ (input)) },
          });
          input.checked = value === chosen;
          return h("label", { class: "look" }, input, h("span", { text: label }));
        }),
        name === "notices" && refused,
      );
    }),
  );
}
