// @ts-check
/**
 * The Model tab: what is loaded and how it runs.
 * @import { Store } from "../session/store.js"
 */

import { h } from "../base/dom.js";
import { bytes, count, parameters, tokens } from "../base/format.js";
import { t } from "../base/language.js";
import { whereTextGoes } from "../session/hosts.js";

/** How each known field is called and shown; what is not known here is shown as it is. */
const FIELDS = {
  name: [t("Model"), String],
  architecture: [t("Architecture"), String],
  quantization: [t("Weights"), String],
  num_parameters: [t("Parameters"), parameters],
  weight_bytes: [t("Size of the weights"), bytes],
  vocab_size: [t("Vocabulary"), tokens],
  max_seq_len: [t("Context"), tokens],
  cache_tokens: [t("Cache"), tokens],
  cache_bytes: [t("Size of the cache"), bytes],
  cache_by_layers: [t("Of that"), String],
  host: [t("Text goes to"), String],
  device: [t("Runs on"), String],
  isa: [t("Instructions"), String],
  threads: [t("Threads"), count],
  chat_template: [t("Chat template"), (has) => (has ? t("the model's own") : t("plain “Name: text”"))],
};
const STATUS = {
  problem: [t("Problem"), String],
  memory_bytes: [t("Memory of the process"), bytes],
  gpu_memory_bytes: [t("GPU memory in use"), bytes],
  gpu_memory_total_bytes: ["GPU memory", bytes],
  running: [t("Replies being written"), count],
  waiting: [t("Replies waiting"), count],
  pages_used: [t("Cache pages in use"), count],
  pages_total: [t("Cache pages"), count],
};

/** @param {Store} store @param {() => void} openModels */
export function createModelTab(store, openModels) {
  const list = h("dl", { class: "facts" });
  const lacks = h("ul", { class: "lacks" });
  const running = h("dl", { class: "facts" });
  const foot = h("p", { class: "help" });
  const body = h(
    "div",
    {},
    h("button", { type: "button", class: "button", text: t("Choose a model"), on: { click: openModels } }),
    list,
    lacks,
    h("section", { class: "field-group" }, h("h2", { class: "group-label", text: t("Right now") }), running),
    foot,
  );

  function show() {
    const { status } = store.state;
    if (!status) return;
    list.replaceChildren(...facts(status.model || {}, FIELDS));
    running.replaceChildren(...facts(status.engine || {}, STATUS));
    const where = whereTextGoes(store.state) || t("Everything stays on this machine.");
    foot.textContent = `Parlor ${status.version || ""}. ${where}`;
    const cannot = Object.values(status.model?.cannot || {});
    lacks.replaceChildren(...cannot.map((text) => h("li", { class: "help", text })));
  }

  store.on(["status", "session", "bots", "settings"], show);
  show();
  return { body };
}

/** @param {Record<string, any>} values @param {Record<string, any[]>} fields */
function facts(values, fields) {
  return Object.entries(fields)
    .filter(([key]) => values[key] !== undefined && values[key] !== null && values[key] !== "")
    .map(([key, [label, show]]) =>
      h("div", {}, h("dt", { text: label }), h("dd", { class: "tabular", text: show(values[key]) })),
    );
}
