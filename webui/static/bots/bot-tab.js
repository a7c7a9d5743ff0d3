// @ts-check
/**
 * The Bot tab: who is in the room, in speaking order, and every other bot there is.
 * @import { Bot } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { RoomChanges } from "../session/room-changes.js"
 */

import { h, iconButton, monogram } from "../base/dom.js";
import { t } from "../base/language.js";
import { botOf, inShort, pictureOf } from "../session/store.js";
import { adapterProblem } from "./adapters.js";

/**
 * @param {Store} store
 * @param {RoomChanges & {menu: (bot: Bot, anchor: HTMLElement) => void}} changes
 * @param {{speak: (id: string) => void, editBot: (bot: Bot | null) => void}} page
 */
export function createBotTab(store, changes, page) {
  const inside = h("ul", { class: "bot-list", "aria-label": t("Bots in this session") });
  const outside = h("ul", { class: "bot-list", "aria-label": t("Other bots") });
  const others = h(
    "section",
    { class: "field-group" },
    h("h2", { class: "group-label", text: t("Other bots") }),
    outside,
  );
  const empty = h("p", { class: "help", text: t("Nobody is in the room. Add a bot below.") });
  const body = h(
    "div",
    {},
    h(
      "section",
      {},
      h("h2", { class: "group-label", text: t("In the room") }),
      h("p", { class: "help", text: t("They speak in this order.") }),
      inside,
      empty,
    ),
    others,
  );
  const foot = h(
    "div",
    { class: "panel-foot" },
    h("button", {
      type: "button",
      class: "text-button",
      text: t("New bot"),
      on: { click: () => page.editBot(null) },
    }),
  );

  /** @param {Bot} bot */
  function problemOf(bot) {
    const problem = adapterProblem(store.state, bot);
    return problem && h("span", { class: "help wrong", text: problem });
  }

  /** All that can be done with one, in words. @param {Bot} bot */
  function more(bot) {
    const button = iconButton("ellipsis", t("More about {name}", bot), () => changes.menu(bot, button), {
      "aria-haspopup": "menu",
    });
    return button;
  }

  /** @param {{id: string, muted: boolean}} entry @param {number} at @param {number} many */
  function member(entry, at, many) {
    const bot = botOf(store.state, entry.id);
    const name = bot?.name || t("Deleted bot");
    return h(
      "li",
      { class: `bot-row ${entry.muted ? "is-muted" : ""}` },
      monogram(name, bot?.color, "", pictureOf(bot)),
      h(
        "div",
        { class: "bot-text" },
        h("span", { class: "bot-name", text: name }),
        h("span", { class: "help", text: entry.muted ? t("Muted") : bot ? inShort(bot) : t("Its file is gone.") }),
        bot && problemOf(bot),
        h(
          "div",
          { class: "bot-actions" },
          bot && iconButton("message-circle", t("Let {name} speak", { name }), () => page.speak(entry.id)),
          many > 1 &&
            iconButton("arrow-up", t("Move {name} up", { name }), () => changes.move(entry.id, at - 1), {
              disabled: at === 0,
            }),
          many > 1 &&
            iconButton("arrow-down", t("Move {name} down", { name }), () => changes.move(entry.id, at + 1), {
              disabled: at === many - 1,
            }),
          bot && iconButton("pencil", t("Edit {name}", { name }), () => page.editBot(bot)),
          bot
            ? more(bot)
            : iconButton("x", t("Remove {name} from this session", { name }), () => changes.remove(entry.id)),
        ),
      ),
    );
  }

  /** @param {Bot} bot */
  function outsider(bot) {
    return h(
      "li",
      { class: "bot-row" },
      monogram(bot.name, bot.color, "", pictureOf(bot)),
      h(
        "div",
        { class: "bot-text" },
        h("span", { class: "bot-name", text: bot.name }),
        h("span", { class: "help", text: inShort(bot) }),
        problemOf(bot),
        h(
          "div",
          { class: "bot-actions" },
          iconButton("plus", t("Add {name} to this session", bot), () => changes.add(bot.id)),
          iconButton("pencil", t("Edit {name}", bot), () => page.editBot(bot)),
        ),
      ),
    );
  }

  /** @type {any[]} */
  let built = [];

  function show() {
    const { session, bots } = store.state;
    const from = [bots, JSON.stringify(session?.bots)];
    if (from.every((value, at) => value === built[at])) return;
    built = from;
    const focused = document.activeElement?.getAttribute("aria-label");
    const entries = session?.bots || [];
    const left = bots.filter((bot) => !entries.some((entry) => entry.id === bot.id));
    inside.replaceChildren(...entries.map((entry, at) => member(entry, at, entries.length)));
    outside.replaceChildren(...left.map(outsider));
    empty.hidden = entries.length > 0;
    others.hidden = left.length === 0;
    if (focused && !document.activeElement?.matches("button")) {
      /** @type {any} */ (
        [...body.querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === focused)
      )?.focus();
    }
  }

  store.on(["session", "bots", "status"], show);
  show();
  return { body, foot };
}
