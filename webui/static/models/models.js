// @ts-check
/**
 * The menu of models: what is loaded or on its way, and all models of this machine with what each would take.
 * Loaded when it is first opened.
 * @import { Model, Slot } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { h, icon, setText } from "../base/dom.js";
import { bytes, inRow, parameters } from "../base/format.js";
import { isTouchOnly } from "../base/input.js";
import { t, tn, together } from "../base/language.js";
import { get, post } from "../server/api.js";
import { chooseDialog, openDialog } from "../overlays/dialogs.js";
import { toastError } from "../overlays/toast.js";
import { comingText, createProgress, isComing } from "./model-line.js";
import { createAdaptersPart } from "./adapters-part.js";
import { createEngines } from "./engines.js";
import { createGetModel } from "./get-model.js";

const LOOK_AGAIN_MS = 700;

/**
 * @param {Store} store
 * @param {{took: (slot: Slot) => void, enginesChanged: () => Promise<void>}} page `took` hears what the
 *   server says after each request
 */
export function createModels(store, page) {
  /** @type {HTMLDialogElement | null} */
  let dialog = null;
  /** @type {Model[] | null} */
  let models = null;
  let looking = true;
  let timer = 0;
  /** What was loaded and downloaded when the list was read. */
  let shown = "";

  const search = /** @type {HTMLInputElement} */ (
    h("input", {
      type: "search",
      class: "text-input",
      placeholder: t("Search"),
      "aria-label": t("Search models"),
      autocomplete: "off",
      spellcheck: "false",
      "data-autofocus": true,
      on: { input: showList, keydown: (event) => intoList(event) },
    })
  );
  const progress = createProgress(t("How much of the model is loaded"));
  const nowText = h("p", { class: "models-now-text" });
  const cancelButton = button(t("Cancel"), () => change("/api/models/cancel"));
  const unloadButton = button(t("Unload"), () => changeAsking("/api/models/unload", t("Unload the model when that is done, or stop it now?")));
  const problem = h("p", { class: "help wrong", role: "alert" });
  const now = h(
    "div",
    { class: "models-now" },
    h("div", { class: "models-now-row" }, nowText, cancelButton, unloadButton),
    progress.element,
  );
  const list = h("ul", { class: "models" });
  const found = h("p", { class: "help", role: "status" });
  const useless = h("ul", { class: "models" });
  const uselessTitle = h("summary", { class: "group-label" });
  const uselessPart = h("details", {}, uselessTitle, useless);
  const hub = createGetModel(store, change);
  const others = createEngines({
    tell,
    changed: async () => {
      await read("?again=1");
      await page.enginesChanged();
    },
  });
  const adapters = createAdaptersPart({
    tell,
    changed: (answer) => {
      showProblem("");
      page.took(answer.model);
      adapters.show(answer.adapters, store.state.slot?.name || "");
    },
  });
  const searchRow = h("div", { class: "models-now-row" }, search, button(t("Get more"), () => hub.focus()));
  const foot = h("p", {
    class: "help",
    text:
      t("GGUF files and folders from a model hub that lie in Parlor's models folder are listed here, and those that Hugging Face's tools, LM Studio and Ollama have brought."),
  });

  /** @param {string} text @param {() => void} onClick */
  function button(text, onClick) {
    return h("button", { type: "button", class: "button small", text, on: { click: onClick } });
  }

  /** Ask the server for a change; true if it agreed. @param {string} path @param {any} [body] */
  async function change(path, body) {
    showProblem("");
    try {
      page.took((await post(path, body)).model);
      return true;
    } catch (error) {
      if (/** @type {any} */ (error).code === "writing") throw error;
      tell(error);
      return false;
    }
  }

  /** @param {string} text */
  function showProblem(text) {
    problem.hidden = !text;
    setText(problem, text);
  }

  /** @param {any} error */
  function tell(error) {
    if (dialog) showProblem(together(error.message, error.hint));
    else toastError(error);
  }

  /**
   * The same, after asking what becomes of replies that are being written.
   * @param {string} path @param {string} what @param {any} [body]
   */
  async function changeAsking(path, what, body = {}) {
    try {
      return await change(path, body);
    } catch (error) {
      const number = /** @type {any} */ (error).body?.replies || 1;
      const running = await chooseDialog(
        tn("A reply is being written", "{count} replies are being written", number),
        together(what, t("What is written is kept either way.")),
        [
          ["stop", t("Stop it")],
          ["wait", t("Wait for it")],
        ],
      );
      return running ? change(path, { ...body, running }).catch(tell) : false;
    }
  }

  /** @param {Model} model */
  const load = (model) => changeAsking(`/api/models/${model.id}/load`, loadWhen(model));

  /**
   * Read the list, and again while the server still looks. Whether it answered.
   * @param {string} [how] "?again=1": other engines are asked even if they just were
   */
  async function read(how = "") {
    clearTimeout(timer);
    const body = await get(`/api/models${how}`).catch(tell);
    if (!body) return false;
    models = body.models;
    looking = body.looking;
    others.show(body.engines);
    adapters.show(body.adapters, body.model.name);
    page.took(body.model);
    if (!dialog) return true;
    showList();
    if (looking) timer = window.setTimeout(() => read(), LOOK_AGAIN_MS);
    return true;
  }

  function showNow() {
    const { slot } = store.state;
    if (!dialog || !slot) return;
    const coming = isComing(slot);
    const loaded = {
      ready: t("{name} is loaded.", slot),
      asleep: t("{name} is loaded again with the next message.", slot),
    };
    setText(nowText, coming ? `${comingText(slot)}.` : loaded[slot.phase] || t("No model is loaded."));
    progress.element.hidden = !coming;
    progress.set(slot.share);
    keepFocus(cancelButton, !coming);
    keepFocus(unloadButton, slot.phase !== "ready");
    if (slot.problem) showProblem(slot.problem);
    hub.show();
    const has = `${slot.version} ${slot.download?.phase} ${slot.download?.id}`;
    if (has !== shown) {
      shown = has;
      read();
    }
    showList();
  }

  /** Where the focus goes that has lost its place: to no field that brings up a keyboard by itself. */
  const rest = () => (isTouchOnly() && dialog?.querySelector("button")) || search;

  /**
   * Hide a button, and let the focus not be lost with it.
   * @param {HTMLElement} element @param {boolean} hide
   */
  function keepFocus(element, hide) {
    if (hide && document.activeElement === element) rest().focus();
    element.hidden = hide;
  }

  function showList() {
    if (!dialog) return;
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matching = (models || []).filter((model) => {
      const { name, family, quantization, place, where } = model;
      const text = [name, family, quantization, place, where].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const good = matching.filter((model) => !model.problem);
    const bad = matching.filter((model) => model.problem);
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.model;
    list.replaceChildren(...good.map(row));
    useless.replaceChildren(...bad.map(row));
    uselessPart.hidden = !bad.length;
    setText(uselessTitle, t("Cannot be loaded ({count})", { count: bad.length }));
    const none = words.length ? t("No model is called that.") : t("There is no model yet.");
    const many = good.length ? tn("{count} model", "{count} models", good.length) : looking ? "" : none;
    setText(found, [many, looking && t("Looking for models…")].filter(Boolean).join(" · "));
    if (!focused) return;
    const same = dialog.querySelector(`button:enabled[data-model="${focused}"]`);
    /** @type {any} */ (same || (cancelButton.hidden ? rest() : cancelButton)).focus();
  }

  /** @param {Model} model */
  function row(model) {
    const { slot } = store.state;
    const isLoaded = slot?.phase === "ready" && slot.id === model.id;
    const may = model.fits && !isLoaded;
    const facts = [
      model.family,
      model.num_parameters && t("{number} parameters", { number: parameters(model.num_parameters) }),
      model.quantization,
      model.size_bytes && bytes(model.size_bytes),
      model.max_positions && t("context {tokens}", { tokens: model.max_positions }),
      model.place === "Models folder" ? t("Models folder") : model.place,
    ];
    return h(
      "li",
      { class: "model", title: model.where },
      h(
        "div",
        { class: "model-text" },
        h("p", { class: "model-name", dir: "auto", text: model.name }),
        h("p", { class: "help tabular", text: inRow(...facts) }),
        isLoaded && h("p", { class: "help fits" }, icon("check"), model.host ? t("In use, at {host}", model) : t("Loaded")),
        !isLoaded && (model.host ? h("p", { class: "help", text: t("Text goes to {host}", model) }) : fit(model)),
      ),
      may &&
        h("button", {
          type: "button",
          class: "button small",
          text: model.host ? t("Use") : t("Load"),
          "aria-label": model.host ? t("Use {name}", model) : t("Load {name}", model),
          disabled: isComing(slot),
          data: { model: model.id },
          on: { click: () => load(model), keydown: (event) => alongList(event) },
        }),
    );
  }

  /** Down from the search goes to the first model. @param {KeyboardEvent} event */
  function intoList(event) {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    /** @type {any} */ (list.querySelector("button:enabled"))?.focus();
  }

  /** @param {KeyboardEvent} event */
  function alongList(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const buttons = /** @type {HTMLElement[]} */ ([...list.querySelectorAll("button:enabled")]);
    const at = buttons.indexOf(/** @type {any} */ (event.currentTarget)) + by;
    (buttons[at] || (at < 0 ? search : buttons.at(-1)))?.focus();
  }

  store.on(["slot"], showNow);

  /** Open it, at models of this name. @param {string} [name] */
  function open(name = "") {
    if (dialog) return;
    search.value = name;
    showProblem("");
    const parts = [now, problem, searchRow, found, list, adapters.element, uselessPart, others.element, hub.element, foot];
    dialog = openDialog(t("Models"), parts, {
      wide: true,
      onClose: () => {
        dialog = null;
        clearTimeout(timer);
      },
    });
    shown = "";
    showNow();
  }

  return {
    open,
    get isOpen() {
      return dialog !== null;
    },
    cancel: () => change("/api/models/cancel"),
    cancelDownload: () => change("/api/models/downloads/cancel"),

    /** Load the present model again, with a context of so many tokens. @param {number} tokens */
    enlarge(tokens) {
      const { id, name } = /** @type {any} */ (store.state.slot);
      return changeAsking(`/api/models/${id}/load`, loadWhen({ name }), { max_seq_len: tokens });
    },

    /** @param {string} id @param {string} name */
    loadNew: (id, name) => changeAsking(`/api/models/${id}/load`, loadWhen({ name })),

    /** Load the model of this name, or open the menu if that is not one. @param {string} name */
    async loadNamed(name) {
      do {
        if (!(await read())) return;
        if (looking) await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
      } while (looking);
      const called = (models || []).filter((model) => model.name === name && model.fits);
      if (called.length === 1) load(called[0]);
      else open(name);
    },
  };
}

/** Whether it fits, and what would, or what it means that only a part does. @param {Model} model */
function fit(model) {
  const not = model.problem || (model.fits === false && together(t("Does not fit."), model.advice)) || model.advice;
  if (not) return h("p", { class: "help fits-not" }, icon("triangle-alert"), h("span", { text: not }));
  if (!model.is_read) return h("p", { class: "help", text: t("Its file is being read…") });
  const cut = (model.max_seq_len || 0) < (model.max_positions || 0);
  const size = bytes(model.memory_bytes || 0);
  const takes = cut
    ? t("Fits: takes {size} with a context of {tokens} tokens", { size, tokens: model.max_seq_len || 0 })
    : t("Fits: takes {size}", { size });
  const cache = model.cache_by_layers && t("of its cache {what}", { what: model.cache_by_layers });
  return h("p", { class: "help fits" }, icon("check"), [takes, cache].filter(Boolean).join("; "));
}

/** @param {number} n */
/** What becomes of a reply that is being written? @param {{name: string}} model */
const loadWhen = (model) => t("Load {name} when that is done, or stop it now?", model);
