// @ts-check
/**
 * The Model tab: what is loaded and how it runs.
 * @import { Store } from "../session/store.js"
 */

import { h } from "../base/dom.js";
import { bytes, count, plural } from "../base/format.js";
import { whereTextGoes } from "../session/hosts.js";

/** How each known field is called and shown; what is not known here is shown as it is. */
const FIELDS = {
  name: ["Model", String],
  architecture: ["Architecture", String],
  quantization: ["Weights", String],
  num_parameters: [
    "Parameters",
    (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(1)} billion` : `${(n / 1e6).toFixed(1)} million`),
  ],
  weight_bytes: ["Size of the weights", bytes],
  vocab_size: ["Vocabulary", (n) => plural(n, "token")],
  max_seq_len: ["Context", (n) => plural(n, "token")],
  cache_tokens: ["Cache", (n) => plural(n, "token")],
  cache_bytes: ["Size of the cache", bytes],
  cache_by_layers: ["Of that", String],
  host: ["Text goes to", String],
  device: ["Runs on", String],
  isa: ["Instructions", String],
  threads: ["Threads", count],
  chat_template: ["Chat template", (has) => (has ? "the model's own" : "plain “Name: text”")],
};
const STATUS = {
  problem: ["Problem", String],
  memory_bytes: ["Memory of the process", bytes],
  gpu_memory_bytes: ["GPU memory in use", bytes],
  gpu_memory_total_bytes: ["GPU memory", bytes],
  running: ["Replies being written", count],
  waiting: ["Replies waiting", count],
  pages_used: ["Cache pages in use", count],
  pages_total: ["Cache pages", count],
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
    h("button", { type: "button", class: "button", text: "Choose a model", on: { click: openModels } }),
    list,
    lacks,
    h("section", { class: "field-group" }, h("h2", { class: "group-label", text: "Right now" }), running),
    foot,
  );

  function show() {
    const { status } = store.state;
    if (!status) return;
    list.replaceChildren(...facts(status.model || {}, FIELDS));
    running.replaceChildren(...facts(status.engine || {}, STATUS));
    const where = whereTextGoes(store.state) || "Everything stays on this machine.";
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
