// @ts-check
/**
 * The LoRA adapters that are loaded beside the model, as a bot chooses among them.
 * @import { Bot, State } from "../types.js"
 */

import { h, icon } from "../base/dom.js";
import { t } from "../base/language.js";

/** @param {State} state @returns {string[]} */
const loadedAdapters = (state) => state.status?.model?.adapters || [];

/** What is wrong with a bot's adapter; empty if nothing is. @param {State} state @param {Bot} bot */
export function adapterProblem(state, bot) {
  if (!bot.adapter || !state.status?.model || loadedAdapters(state).includes(bot.adapter)) return "";
  return t("Its adapter {adapter} is not loaded.", bot);
}

/**
 * The choice, or null where there is nothing to choose.
 * @param {State} state @param {string} chosen @param {(name: string) => void} onChange
 */
export function adapterChoice(state, chosen, onChange) {
  const loaded = loadedAdapters(state);
  if (!loaded.length && !chosen) return null;
  const missing = chosen && !loaded.includes(chosen) ? [chosen] : [];
  const select = h(
    "select",
    { class: "select" },
    h("option", { value: "", text: t("None") }),
    ...loaded.map((name) => h("option", { value: name, text: name })),
    ...missing.map((name) => h("option", { value: name, text: t("{name} (not loaded)", { name }) })),
  );
  select.value = chosen;
  select.addEventListener("change", () => onChange(select.value));
  return h("div", { class: "select-frame" }, select, icon("chevron-down"));
}
