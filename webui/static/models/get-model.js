// @ts-check
/**
 * Getting a model from a hub: what it has, which of it fits, the download that goes on. A part of the menu of
 * models.
 * @import { Download } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { h, icon, setText } from "../base/dom.js";
import { bytes } from "../base/format.js";
import { t, tn, together } from "../base/language.js";
import { post } from "../server/api.js";
import { createProgress, downloadText, isDownloading, showCancel } from "./model-line.js";

/**
 * @param {Store} store
 * @param {(path: string, body?: any) => Promise<boolean>} change asks the server for it
 */
export function createGetModel(store, change) {
  const source = /** @type {HTMLInputElement} */ (
    h("input", {
      id: "hub-source",
      type: "text",
      class: "text-input",
      placeholder: "owner/name",
      autocomplete: "off",
      autocapitalize: "off",
      spellcheck: "false",
      maxlength: "400",
      "aria-describedby": "hub-help",
      on: { keydown: lookOnEnter, input: () => offer(null) },
    })
  );
  const lookButton = button(t("Look"), look);
  const problem = h("p", { class: "help wrong", role: "alert", hidden: true });
  const choices = h("div", { class: "choices", role: "radiogroup", "aria-label": t("Which of them") });
  const downloadButton = button(t("Download"), () => download());
  const offered = h("div", { hidden: true }, choices, downloadButton);
  const text = h("p", { class: "models-now-text tabular" });
  const progress = createProgress(t("How much is downloaded"));
  const cancel = button(t("Cancel"), () => change("/api/models/downloads/cancel"));
  const running = h(
    "div",
    { class: "models-now", hidden: true },
    h("div", { class: "models-now-row" }, text, cancel),
    progress.element,
  );
  const element = h(
    "section",
    {},
    h(
      "h3",
      { class: "group-label" },
      h("label", { for: "hub-source", text: t("Get a model from Hugging Face's hub") }),
    ),
    h("div", { class: "models-now-row" }, source, lookButton),
    h("p", {
      class: "help",
      id: "hub-help",
      text: t("Nothing leaves this machine but what you ask the hub for here. A download that broke off goes on."),
    }),
    problem,
    offered,
    running,
  );
  /** @type {string} */
  let repo = "";

  /** @param {string} label @param {() => void} onClick */
  function button(label, onClick) {
    return h("button", { type: "button", class: "button small", text: label, on: { click: onClick } });
  }

  /** @param {KeyboardEvent} event */
  function lookOnEnter(event) {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    look();
  }

  /** @param {string} words */
  function say(words) {
    problem.hidden = !words;
    setText(problem, words);
  }

  async function look() {
    say("");
    offer(null);
    if (!source.value.trim()) return source.focus();
    lookButton.disabled = true;
    setText(lookButton, t("Looking…"));
    try {
      offer(await post("/api/models/downloads/look", { source: source.value }));
    } catch (error) {
      say(together(/** @type {any} */ (error).message, /** @type {any} */ (error).hint));
    }
    lookButton.disabled = false;
    setText(lookButton, t("Look"));
  }

  /**
   * Show what there is, with what suits this machine chosen.
   * @param {{source: string, chosen: string | null, variants: {label: string, size_bytes: number,
   *   files: number, fits: boolean}[]} | null} found
   */
  function offer(found) {
    offered.hidden = !found;
    if (!found) return;
    repo = found.source;
    choices.replaceChildren(
      ...found.variants.map((variant) => {
        const input = h("input", { type: "radio", name: "hub-variant", value: variant.label });
        input.checked = variant.label === found.chosen;
        const size = bytes(variant.size_bytes);
        const parts = variant.files > 1 ? `, ${tn("{count} file", "{count} files", variant.files)}` : "";
        return h(
          "label",
          { class: "choice" },
          input,
          h(
            "span",
            {},
            h("span", { class: "choice-name tabular", text: `${variant.label} · ${size}${parts}` }),
            variant.fits
              ? h("span", { class: "help fits" }, icon("check"), t("Should fit"))
              : h("span", { class: "help fits-not" }, icon("triangle-alert"), t("Is too large for the memory here")),
          ),
        );
      }),
    );
    const first = /** @type {HTMLInputElement | null} */ (
      choices.querySelector("input:checked") || choices.querySelector("input")
    );
    if (document.activeElement === source || document.activeElement === document.body) first?.focus();
  }

  async function download() {
    const chosen = /** @type {HTMLInputElement | null} */ (choices.querySelector("input:checked"));
    if (!chosen) return say(t("Choose one of them."));
    if (await change("/api/models/downloads", { source: `${repo}:${chosen.value}` })) offer(null);
  }

  function show() {
    const now = store.state.slot?.download || null;
    const goesOn = isDownloading(now);
    const stays = goesOn && now?.phase !== "cancelling";
    if (!stays && running.contains(document.activeElement)) source.focus();
    running.hidden = !goesOn;
    downloadButton.disabled = goesOn;
    if (goesOn) {
      const { done_bytes, total_bytes } = /** @type {Download} */ (now);
      setText(text, downloadText(/** @type {Download} */ (now)));
      showCancel(cancel, /** @type {Download} */ (now));
      progress.set(total_bytes ? done_bytes / total_bytes : 0);
    } else if (now?.phase === "failed") say(now.problem);
  }

  return {
    element,
    show,
    focus() {
      source.focus();
      element.scrollIntoView({ block: "nearest" });
    },
  };
}
