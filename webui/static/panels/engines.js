// @ts-check
/**
 * Other engines: those that are named, what is wrong with them, and the dialog that adds one. A part of the
 * menu of models.
 * @import { Engine } from "../types.js"
 */

import { h, icon } from "../base/dom.js";
import { t, tn } from "../base/language.js";
import { post, remove } from "../server/api.js";
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
    on: { click: () => openAdding(page.changed) },
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
    const key = engine.has_key ? t(t("with a key")) : "";
    const facts = [engine.host, key, engine.is_fixed && t("named at the start")].filter(Boolean);
    return h(
      "li",
      { class: "model is-engine", title: engine.url },
      h(
        "div",
        { class: "model-text" },
        h("p", { class: "model-name", dir: "auto", text: engine.name }),
        h("p", { class: "help tabular", text: facts.join(" · ") }),
        state(engine),
      ),
      engine.problem && small(t("Try again"), t("Ask {name} again", engine), page.changed),
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
  if (!engine.is_read) return h("p", { class: "help", text: t("Being asked for its models …") });
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

/** @param {() => Promise<any>} added */
function openAdding(added) {
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
  const key = labelled("engine-key", t("Key"), t("If it wants one. It is kept on Parlor's machine and never shown again."), {
    type: "password",
    maxlength: "10000",
    autocomplete: "new-password",
  });
  const headers = labelled("engine-headers", t("Further headers"), t("One a line, as Name: value. Most need none."), {
    rows: "2",
  });
  const wrong = h("p", { class: "help wrong", role: "alert", hidden: true });

  /** @param {string} words */
  function say(words) {
    wrong.hidden = !words;
    wrong.textContent = words;
  }

  async function save() {
    say("");
    const lines = headers.input.value.split("\n").filter((line) => line.trim());
    const pairs = lines.map((line) => [line.split(":", 1)[0].trim(), line.slice(line.indexOf(":") + 1).trim()]);
    if (lines.some((line) => !line.includes(":"))) return say(t("A header has no colon; expected Name: value."));
    try {
      const body = { url: url.input.value.trim(), name: name.input.value.trim(), key: key.input.value };
      await post("/api/engines", { ...body, headers: Object.fromEntries(pairs) });
    } catch (error) {
      const { message, hint } = /** @type {any} */ (error);
      return say([message, hint].filter(Boolean).join(" "));
    }
    dialog.close();
    await added();
  }

  const dialog = openDialog(t("Add an engine"), [url.element, name.element, key.element, headers.element], {
    onSubmit: save,
    actions: [
      wrong,
      dialogButton(t("Cancel"), "ghost", () => dialog.close()),
      dialogButton(t("Add"), "primary", null),
    ],
  });
}
