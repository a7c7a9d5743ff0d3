// @ts-check
/**
 * How the page looks in this browser: its colours, the size of what is said, the width of the conversation.
 * What is chosen is seen at once, and remembered; early.js puts it there before the first paint, css/base.css
 * has what each means.
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
]);

export function openAppearance() {
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
            on: { change: () => choose(name, value) },
          });
          input.checked = value === chosen;
          return h("label", { class: "look" }, input, h("span", { text: label }));
        }),
      );
    }),
  );
}

/** @param {"theme" | "textSize" | "column"} name @param {string} value */
function choose(name, value) {
  remember(name, value);
  if (value) document.documentElement.dataset[name] = value;
  else delete document.documentElement.dataset[name];
}
