// @ts-check
/**
 * The Session tab: what belongs to this conversation alone.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h, setText } from "../base/dom.js";
import { t, tn } from "../base/language.js";
import { createNote } from "../memory/note.js";

/** A name becomes "Name:" in prompts. */
const NOT_IN_NAMES = /[:\p{Cc}\u2028\u2029]/gu;

/**
 * @param {Store} store
 * @param {Room} room
 * @param {{timeline: () => void, rename: () => void, duplicate: () => void,
 *   exported: (format: "json" | "markdown" | "html") => void, print: () => void, remove: () => void}} page
 */
export function createSessionTab(store, room, page) {
  const prompt = textBox(
    "system-prompt",
    t("System prompt"),
    t("Added to every bot's persona in this session."),
    "textarea",
    50_000,
  );
  const user = textBox("user-name", t("Your name"), t("What the bots call you. Empty is “User”."), "input", 60);
  const persona = textBox("user-persona", t("Who you are"), t("What the bots are told about you."), "textarea", 50_000);
  const orders = h("div", { class: "choices", role: "radiogroup", "aria-labelledby": "turn-order-label" });
  const action = (text, onClick, kind = "") =>
    h("button", { type: "button", class: `button ${kind}`, text, on: { click: onClick } });
  const lore = action(t("Lore book"), async () => (await import("../memory/lore.js")).openLore(store, room));
  lore.setAttribute("aria-haspopup", "dialog");
  const saved = h(
    "section",
    { class: "field-group" },
    h("h2", { class: "group-label", text: t("This session") }),
    h(
      "div",
      { class: "button-grid" },
      action(t("Timeline"), page.timeline),
      action(t("Rename"), page.rename),
      action(t("Duplicate"), page.duplicate),
      action(t("Export JSON"), () => page.exported("json")),
      action(t("Export Markdown"), () => page.exported("markdown")),
      action(t("Export HTML"), () => page.exported("html")),
      action(t("Print"), page.print),
      action(t("Delete"), page.remove, "danger"),
    ),
  );
  const body = h(
    "div",
    {},
    prompt.element,
    createNote(store, room),
    h(
      "div",
      { class: "field" },
      lore,
      h("p", { class: "help", text: t("What the bots are to know of a thing when it is spoken of.") }),
    ),
    user.element,
    persona.element,
    h(
      "section",
      { class: "field-group" },
      h("h2", { class: "group-label", id: "turn-order-label", text: t("Who answers next") }),
      orders,
    ),
    saved,
  );

  prompt.input.addEventListener("input", () => room.change({ system_prompt: prompt.input.value }));
  persona.input.addEventListener("input", () => room.change({ user_persona: persona.input.value }));
  user.input.addEventListener("input", () =>
    room.change({ user_name: user.input.value.replace(NOT_IN_NAMES, " ").trim() }),
  );

  let built = "";
  function build() {
    const { settings, status } = store.state;
    orders.replaceChildren(
      ...(settings?.turn_orders || []).map(({ id, label, help }) => {
        const why = (id === "model" && status?.model?.cannot?.rank) || "";
        const input = h("input", {
          type: "radio",
          name: "turn-order",
          value: id,
          disabled: Boolean(why),
          on: { change: () => room.change({ turn_order: id }) },
        });
        return h(
          "label",
          { class: "choice" },
          input,
          h(
            "span",
            {},
            h("span", { class: "choice-name", text: label }),
            h("span", { class: "help", text: why || help }),
          ),
        );
      }),
    );
    show();
  }

  function show() {
    const { session } = store.state;
    if (!session) return;
    if (document.activeElement !== prompt.input) prompt.input.value = session.system_prompt;
    if (document.activeElement !== user.input) user.input.value = session.user_name;
    if (document.activeElement !== persona.input) persona.input.value = session.user_persona || "";
    for (const input of orders.querySelectorAll("input")) input.checked = input.value === session.turn_order;
    saved.hidden = !session.id;
    const entries = session.lore?.length || 0;
    setText(lore, entries ? `${t("Lore book")} · ${tn("{count} entry", "{count} entries", entries)}` : t("Lore book"));
  }

  store.on(["settings", "status"], () => {
    const now = JSON.stringify([store.state.settings?.turn_orders, store.state.status?.model?.cannot]);
    if (now === built) return;
    built = now;
    build();
  });
  store.on(["session"], show);
  build();
  return { body };
}

/**
 * @param {string} id @param {string} label @param {string} help @param {"input" | "textarea"} tag
 * @param {number} most
 */
function textBox(id, label, help, tag, most) {
  const input = h(tag, {
    id,
    class: "text-input",
    maxlength: String(most),
    rows: tag === "textarea" ? (id === "system-prompt" ? "6" : "3") : null,
    dir: "auto",
    autocomplete: "off",
    "aria-describedby": `${id}-help`,
  });
  return {
    input,
    element: h(
      "div",
      { class: "field" },
      h("div", { class: "field-head" }, h("label", { for: id, text: label })),
      input,
      h("p", { class: "help", id: `${id}-help`, text: help }),
    ),
  };
}
