// @ts-check
/**
 * What of a bot few people write and many characters bring: other greetings, an example of how it talks, what
 * it is told at the end of each prompt, a nickname, and a lore book.
 * @import { Bot } from "../types.js"
 */

import { h, iconButton } from "../base/dom.js";
import { t } from "../base/language.js";
import { toastError } from "../overlays/toast.js";
import { get } from "../server/api.js";

/** @param {string} label @param {HTMLElement} input @param {string} help */
export function labelled(label, input, help) {
  return h(
    "label",
    { class: "stacked" },
    h("span", { class: "label", text: label }),
    input,
    help && h("span", { class: "help", text: help }),
  );
}

/** @param {number} rows */
const box = (rows) => h("textarea", { class: "text-input", rows: String(rows), maxlength: "50000", dir: "auto" });

/**
 * @param {{example_dialogue: string, alternate_greetings: string[], post_history_instructions: string,
 *   nickname: string}} draft changed in place
 * @param {() => void} changed
 */
export function moreOfBot(draft, changed) {
  /**
   * @param {HTMLElement} input
   * @param {"example_dialogue" | "post_history_instructions" | "nickname"} field
   */
  const kept = (input, field) => {
    input.value = draft[field] || "";
    input.addEventListener("input", () => {
      draft[field] = input.value;
      changed();
    });
    return input;
  };
  return [
    otherGreetings(draft.alternate_greetings, changed),
    labelled(
      t("Example dialogue"),
      kept(box(3), "example_dialogue"),
      t("How it talks, as the model is told after the persona. <START> stands between two dialogues."),
    ),
    labelled(
      t("Instructions at the end"),
      kept(box(2), "post_history_instructions"),
      t("What the model is told after all that was said, each time before it speaks."),
    ),
    labelled(
      t("Nickname"),
      kept(h("input", { type: "text", class: "text-input", maxlength: "60", dir: "auto" }), "nickname"),
      t("What {{char}} stands for in its texts. Empty: its name."),
    ),
  ];
}

/**
 * The lore book, which lists of bots leave out.
 * @param {Bot | null} bot @param {{lore_book?: any}} draft has it once it is changed
 * @param {() => void} changed
 */
export function loreOfBot(bot, draft, changed) {
  async function open() {
    try {
      const kept = "lore_book" in draft || !bot;
      const book = kept ? draft.lore_book : (await get(`/api/bots/${bot.id}`)).bot.lore_book;
      (await import("../memory/lore.js")).openBotLore(book || null, draft, changed);
    } catch (error) {
      toastError(error);
    }
  }
  return h(
    "div",
    { class: "stacked" },
    h("button", {
      type: "button",
      class: "button",
      text: t("Lore book"),
      "aria-haspopup": "dialog",
      on: { click: open },
    }),
    h("p", { class: "help", text: t("What it alone is to know of a thing when it is spoken of.") }),
  );
}

/** @param {string[]} texts changed in place @param {() => void} changed */
function otherGreetings(texts, changed) {
  const rows = h("div", {});
  const add = h("button", {
    type: "button",
    class: "button",
    text: t("Add a greeting"),
    on: {
      click: () => {
        texts.push("");
        changed();
        draw();
        rows.querySelector(".greeting-row:last-child textarea").focus();
      },
    },
  });

  function draw() {
    rows.replaceChildren(
      ...texts.map((text, at) => {
        const input = box(2);
        input.setAttribute("aria-label", t("Greeting {number}", { number: at + 2 }));
        input.value = text;
        input.addEventListener("input", () => {
          texts[at] = input.value;
          changed();
        });
        const drop = iconButton("x", t("Remove greeting {number}", { number: at + 2 }), () => {
          texts.splice(at, 1);
          changed();
          draw();
          add.focus();
        });
        return h("div", { class: "greeting-row" }, input, drop);
      }),
    );
  }
  draw();
  return h(
    "fieldset",
    { class: "overrides" },
    h("legend", { class: "label", text: t("Other greetings") }),
    h("p", { class: "help", text: t("To choose from when a session begins; they stay as versions of the first message.") }),
    rows,
    add,
  );
}
