// @ts-check
/**
 * By which model a bot speaks: the one that is loaded, or one of another engine. A part of the bot editor.
 * @import { Bot, Model } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { h, icon } from "../base/dom.js";
import { t } from "../base/language.js";
import { get } from "../server/api.js";

/**
 * Nothing where no engine is named and none is chosen.
 * @param {Store} store @param {Bot["engine"]} chosen @param {(engine: Bot["engine"]) => void} onChange
 */
export function botModel(store, chosen, onChange) {
  const engines = store.state.settings?.engines || [];
  if (!engines.length && !chosen) return null;
  const select = /** @type {HTMLSelectElement} */ (h("select", { class: "select", id: "bot-model" }));
  const help = h("p", { class: "help", id: "bot-model-help" });
  select.setAttribute("aria-describedby", "bot-model-help");
  const key = (engine) => (engine ? JSON.stringify([engine.id, engine.model]) : "");
  /** @type {Map<string, {engine: Bot["engine"], label: string, host: string}>} */
  const offered = new Map();

  function offer(engine, label, host) {
    offered.set(key(engine), { engine, label, host });
  }

  function draw() {
    const options = [...offered].map(([value, { label }]) => h("option", { value, text: label }));
    select.replaceChildren(...options);
    select.value = key(chosen);
    tell();
  }

  function tell() {
    const host = offered.get(select.value)?.host;
    help.textContent = host ? t("What is said in its sessions goes to {host}.", { host }) : "";
  }

  /** @param {Model[]} models */
  function take(models) {
    for (const model of models) if (model.engine) offer(model.engine, model.name, model.host);
    draw();
  }

  offer(null, t("The one that is loaded"), "");
  if (chosen) {
    const engine = engines.find((one) => one.id === chosen.id);
    offer(chosen, `${chosen.model} (${engine?.name || t("its engine is not named any more")})`, engine?.host || "");
  }
  draw();
  select.addEventListener("change", () => {
    chosen = offered.get(select.value)?.engine || null;
    onChange(chosen);
    tell();
  });
  read();

  /** Again while lists are still being read. */
  async function read(tries = 20) {
    const body = await get("/api/models").catch(() => null);
    if (!body) return;
    if (body.models.some((model) => model.engine && !offered.has(key(model.engine)))) take(body.models);
    if (body.engines.some((engine) => !engine.is_read) && tries && select.isConnected)
      setTimeout(() => read(tries - 1), 700);
  }

  return h(
    "div",
    { class: "stacked" },
    h("label", { class: "label", for: "bot-model", text: t("Model") }),
    h("div", { class: "select-frame" }, select, icon("chevron-down")),
    help,
  );
}
