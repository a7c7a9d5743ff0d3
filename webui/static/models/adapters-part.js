// @ts-check
/**
 * The part of the menu of models about LoRA adapters: those of the models folder that fit the model that is
 * loaded, and all that are loaded beside it.
 * @import { Adapter, Slot } from "../types.js"
 */

import { h, icon, setText } from "../base/dom.js";
import { bytes, inRow } from "../base/format.js";
import { t } from "../base/language.js";
import { post } from "../server/api.js";

/**
 * @param {{tell: (error: any) => void, changed: (answer: {adapters: Adapter[], model: Slot}) => void}} menu
 *   `changed` hears what the server says after each request
 */
export function createAdaptersPart(menu) {
  const list = h("ul", { class: "models" });
  const help = h("p", { class: "help" });
  const title = h("h3", { class: "group-label", text: t("LoRA adapters") });
  const element = h("section", { hidden: true }, title, help, list);
  /** Which one is on its way, by name. */
  let coming = "";

  /** @param {Adapter[]} adapters @param {string} model its name */
  function show(adapters, model) {
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.adapter;
    element.hidden = !adapters.length;
    const text = t("They change how {model} writes. A bot chooses one in its editor; replies that are being written go on.", { model });
    setText(help, text);
    list.replaceChildren(...adapters.map((adapter) => row(adapter, adapters, model)));
    if (!focused) return;
    const buttons = /** @type {HTMLElement[]} */ ([...list.querySelectorAll("button")]);
    buttons.find((button) => button.dataset.adapter === focused)?.focus();
  }

  /** @param {Adapter} adapter @param {Adapter[]} adapters @param {string} model */
  function row(adapter, adapters, model) {
    const { name, where, size_bytes, is_loaded } = adapter;
    const facts = inRow(size_bytes && bytes(size_bytes), where !== name && where);
    return h(
      "li",
      { class: "model", title: where },
      h(
        "div",
        { class: "model-text" },
        h("p", { class: "model-name", dir: "auto", text: name }),
        facts && h("p", { class: "help tabular", dir: "auto", text: facts }),
        is_loaded && h("p", { class: "help fits" }, icon("check"), t("Loaded")),
      ),
      h("button", {
        type: "button",
        class: "button small",
        text: is_loaded ? t("Unload") : name === coming ? t("Loading…") : t("Load"),
        "aria-label": is_loaded ? t("Unload {name}", { name }) : t("Load {name}", { name }),
        "aria-disabled": String(name === coming),
        data: { adapter: name },
        on: { click: () => change(adapter, adapters, model) },
      }),
    );
  }

  /** @param {Adapter} adapter @param {Adapter[]} adapters @param {string} model */
  async function change(adapter, adapters, model) {
    if (coming) return;
    coming = adapter.name;
    show(adapters, model);
    const { id, name, is_loaded } = adapter;
    try {
      const answer = is_loaded
        ? await post("/api/models/adapters/unload", { name })
        : await post(`/api/models/adapters/${id}/load`, {});
      coming = "";
      menu.changed(answer);
    } catch (error) {
      coming = "";
      show(adapters, model);
      menu.tell(error);
    }
  }

  return { element, show };
}
