// @ts-check
/**
 * With what new sessions begin in this browser: your name, who you are, the preset, who answers next. What is
 * set is kept at once; a session that is there already stays as it is.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h, icon } from "../base/dom.js";
import { t } from "../base/language.js";
import { defaults, setDefaults } from "../session/saving.js";
import { openDialog } from "../overlays/dialogs.js";

/** A name becomes "Name:" in prompts. */
const NOT_IN_NAMES = /[:\p{Cc}\u2028\u2029]/gu;

/**
 * @param {string} label @param {string} help @param {HTMLElement} input
 */
function field(label, help, input) {
  const id = `yours-${input.getAttribute("name")}`;
  input.id = id;
  input.setAttribute("aria-describedby", `${id}-help`);
  return h(
    "div",
    { class: "field" },
    h("div", { class: "field-head" }, h("label", { for: id, text: label })),
    input.tagName === "SELECT" ? h("div", { class: "select-frame" }, input, icon("chevron-down")) : input,
    h("p", { class: "help", id: `${id}-help`, text: help }),
  );
}

/**
 * @param {string} name @param {{id: string, label: string}[]} choices @param {string} chosen
 */
function select(name, choices, chosen) {
  const element = h(
    "select",
    { class: "select", name, on: { change: () => setDefaults({ [name]: element.value }) } },
    ...choices.map(({ id, label }) => h("option", { value: id, text: label })),
  );
  element.value = choices.some(({ id }) => id === chosen) ? chosen : choices[0]?.id;
  return element;
}

/** @param {Store} store @param {Room} room */
export function openYou(store, room) {
  const { settings } = store.state;
  const known = defaults();
  const name = h("input", {
    name: "user_name",
    type: "text",
    class: "text-input",
    maxlength: "60",
    autocomplete: "off",
    dir: "auto",
    "data-autofocus": true,
    on: { input: () => setDefaults({ user_name: name.value.replace(NOT_IN_NAMES, " ").trim() }) },
  });
  const persona = h("textarea", {
    name: "user_persona",
    class: "text-input",
    rows: "5",
    maxlength: "50000",
    dir: "auto",
    on: { input: () => setDefaults({ user_persona: persona.value }) },
  });
  name.value = known.user_name || "";
  persona.value = known.user_persona || "";
  const presets = (settings?.presets || []).map(({ id, name: label }) => ({ id, label }));
  openDialog(
    t("You"),
    [
      h("p", { class: "help", text: t("With this, new sessions begin in this browser.") }),
      field(t("Your name"), t("What the bots call you. Empty is “User”."), name),
      field(t("Who you are"), t("What the bots are told about you."), persona),
      field(t("Preset"), t("How replies are sampled."), select("preset", presets, known.preset || "balanced")),
      field(
        t("Who answers next"),
        t("In a room of several bots."),
        select("turn_order", settings?.turn_orders || [], known.turn_order || "in_turn"),
      ),
    ],
    { onClose: () => showHere(store, room) },
  );
}

/** The session that is not begun yet has them, too. @param {Store} store @param {Room} room */
function showHere(store, room) {
  if (store.state.session?.id === null) room.change(defaults());
}
