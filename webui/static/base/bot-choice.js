// @ts-check
/** Which of several bots something is about, as a labelled list. Knows no session. */

import { h, icon } from "./dom.js";

/**
 * Not shown where there is nothing to choose.
 * @param {{id: string, name: string}[]} bots @param {string} label @param {(id: string) => void} onChange
 */
export function botChoice(bots, label, onChange) {
  const select = /** @type {HTMLSelectElement} */ (
    h("select", { class: "select" }, ...bots.map((bot) => h("option", { value: bot.id, text: bot.name })))
  );
  select.addEventListener("change", () => onChange(select.value));
  return {
    element: h(
      "label",
      { class: "stacked", hidden: bots.length < 2 },
      h("span", { class: "label", text: label }),
      h("span", { class: "select-frame stacked" }, select, icon("chevron-down")),
    ),
    chosen: () => select.value,
    /** @param {string} id */
    choose(id) {
      select.value = id;
    },
  };
}
