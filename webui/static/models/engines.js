// @ts-check
/**
 * Other engines: those that are named, what is wrong with them, and the dialog that adds or changes one. A
 * part of the menu of models.
 * @import { Engine } from "../types.js"
 */

import { h, icon } from "../base/dom.js";
import { inRow } from "../base/format.js";
import { t, tn, together } from "../base/language.js";
import { patch, post, remove } from "../server/api.js";
import { confirmDialog, dialogButton, openDialog } from "../overlays/dialogs.js";

/**
 * @param {{changed: () => Promise<any>, tell: (error: any) => void}} page `changed`: the list is to be read
 *   again
 */
export function createEngines(page) {
  const list = h("ul", { class: "models", "aria-label": t("Other engines") });
  const add = h("button", {
    type: "button",
    class: "button small",
    text: t("Add an engine"),
    on: { click: () => openForm(null, page.changed) },
  });
  const element = h(
    "section",
    {},
    h("h3", { class: "group-label", text: t("Other engines") }),
    h("p", {
      class: "help",
      text:
        t("vLLM, llama.cpp, Ollama or any other engine that speaks OpenAI's protocol. What is said to its models goes to its host."),
    }),
    list,
    add,
  );

  /** @param {Engine} engine */
  async function forget(engine) {
    const then = t("Its key is deleted. Bots that speak by it need another model then.");
    if (!(await confirmDialog(t("Remove {name}?", engine), then, t("Remove")))) return;
    await remove(`/api/engines/${engine.id}`, {}).catch(page.tell);
    await page.changed();
    add.focus();
  }

  /** @param {Engine} engine */
  function row(engine) {
    const small = (text, label, onClick) =>
      h("button", { type: "button", class: "button small", text, "aria-label": label, on: { click: onClick } });
    const key = engine.has_key ? t("with a key") : "";
    const facts = inRow(engine.host, key, engine.is_fixed && t("named at the start"));
    return h(
      "li",
      { class: "model is-engine", title: engine.url },
      h(
        "div",
        { class: "model-text" },
        h("p", { class: "model-name", dir: "auto", text: engine.name }),
        h("p", { class: "help tabular", text: facts }),
        state(engine),
      ),
      engine.problem && small(t("Try again"), t("Ask {name} again", engine), page.changed),
      !engine.is_fixed && small(t("Edit"), t("Edit {name}", engine), () => openForm(engine, page.changed)),
      !engine.is_fixed && small(t("Remove"), t("Remove {name}", engine), () => forget(engine)),
    );
  }

  /** @type {string} */
  let shown = "";
  return {
    element,
    /** @param {Engine[]} engines */
    show(engines) {
      const now = JSON.stringify(engines);
      if (now === shown) return;
      shown = now;
      const focused = document.activeElement?.getAttribute("aria-label");
      list.replaceChildren(...engines.map(row));
      list.hidden = !engines.length;
      if (focused && !element.contains(document.activeElement))
        /** @type {any} */ (element.querySelector(`[aria-label="${CSS.escape(focused)}"]`))?.focus();
    },
  };
}

/** @param {Engine} engine */
function state(engine) {
  if (engine.problem)
    return h("p", { class: "help fits-not" }, icon("triangle-alert"), h("span", { text: engine.problem }));
  if (!engine.is_read) return h("p", { class: "help", text: t("Being asked for its models…") });
  return h("p", { class: "help fits" }, icon("check"), tn("{count} model", "{count} models", engine.num_models));
}

/**
 * @param {string} id @param {string} label @param {string} help
 * @param {Record<string, any>} attributes
 */
function labelled(id, label, help, attributes) {
  const input = /** @type {HTMLInputElement} */ (
    h(attributes.rows ? "textarea" : "input", {
      id,
      class: "text-input",
      autocomplete: "off",
      autocapitalize: "off",
      spellcheck: "false",
      "aria-describedby": `${id}-help`,
      ...attributes,
    })
  );
  const element = h(
    "div",
    { class: "stacked" },
    h("label", { class: "label", for: id, text: label }),
    input,
    h("span", { class: "help", id: `${id}-help`, text: help }),
  );
  return { input, element };
}

/** In place of a header's value that is kept: no value comes out again. */
const KEPT = "••••••";

/**
 * What the lines of headers say: null for a value that is to be kept. Raises Error.
 * @param {string} text @returns {Record<string, string | null>}
 */
function headersOf(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  if (lines.some((line) => !line.includes(":"))) throw new Error(t("A header has no colon; expected Name: value."));
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf(":");
      const value = line.slice(at + 1).trim();
      return [line.slice(0, at).trim(), value === KEPT ? null : value];
    }),
  );
}

/** @param {Engine | null} engine to be changed; null: a new one @param {() => Promise<any>} changed */
function openForm(engine, changed) {
  const url = labelled("engine-url", t("Address"), t("Where its /v1 begins. Text goes to this host and no other."), {
    type: "url",
    required: true,
    maxlength: "1000",
    placeholder: "http://192.168.1.20:8000/v1",
    "data-autofocus": true,
  });
  const name = labelled("engine-name", t("Name"), t("What it is called here. Empty: its host."), {
    type: "text",
    maxlength: "60",
  });
  const keyHelp = engine?.has_key
    ? t("It has one, which is never shown again. Empty: that one stays.")
    : t("If it wants one. It is kept on Parlor's machine and never shown again.");
  const key = labelled("engine-key", t("Key"), keyHelp, {
    type: "password",
    maxlength: "10000",
    autocomplete: "new-password",
    placeholder: engine?.has_key && KEPT,
  });
  const noKey = h("input", { type: "checkbox", on: { change: () => (key.input.disabled = noKey.checked) } });
  const headersHelp = engine?.headers.length
    ? t("One a line, as Name: value. What is dotted stays as it is.")
    : t("One a line, as Name: value. Most need none.");
  const headers = labelled("engine-headers", t("Further headers"), headersHelp, { rows: "2" });
  if (engine) {
    url.input.value = engine.url;
    name.input.value = engine.name === engine.host ? "" : engine.name;
    headers.input.value = engine.headers.map((header) => `${header}: ${KEPT}`).join("\n");
  }
  const wrong = h("p", { class: "help wrong", role: "alert", hidden: true });

  /** @param {string} words */
  function say(words) {
    wrong.hidden = !words;
    wrong.textContent = words;
  }

  async function save() {
    say("");
    try {
      const body = {
        url: url.input.value.trim(),
        name: name.input.value.trim(),
        headers: headersOf(headers.input.value),
        ...((!engine || key.input.value || noKey.checked) && { key: noKey.checked ? "" : key.input.value }),
      };
      await (engine ? patch(`/api/engines/${engine.id}`, body) : post("/api/engines", body));
    } catch (error) {
      const { message, hint } = /** @type {any} */ (error);
      return say(together(message, hint));
    }
    dialog.close();
    await changed();
  }

  const without = engine?.has_key && h("label", { class: "choice" }, noKey, h("span", { text: t("Delete the key") }));
  const fields = [url.element, name.element, key.element, without, headers.element].filter(Boolean);
  const dialog = openDialog(engine ? t("Edit {name}", engine) : t("Add an engine"), /** @type {Node[]} */ (fields), {
    onSubmit: save,
    actions: [
      wrong,
      dialogButton(t("Cancel"), "ghost", () => dialog.close()),
      dialogButton(engine ? t("Save") : t("Add"), "primary", null),
    ],
  });
}
