// @ts-check
/**
 * The bots of the session at the head of the page, in the order in which they speak. The menu of each lets
 * it speak, mutes, moves, edits and removes it; dragging and Alt with the arrow keys move it too.
 * @import { Bot } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { byId, h, icon, iconButton, monogram } from "../base/dom.js";
import { alongReading } from "../base/input.js";
import { t, tn } from "../base/language.js";
import { toast } from "../overlays/toast.js";
import { roomChanges } from "../session/room-changes.js";
import { botOf, pictureOf } from "../session/store.js";

/**
 * @param {Store} store
 * @param {Room} room
 * @param {{speak: (id: string) => void, editBot: (bot: Bot | null) => void, openBots: () => void,
 *   inspect: (which: {bot: string}) => void}} page
 */
export function createChips(store, room, page) {
  const place = byId("chips");
  const changes = { ...roomChanges(store, room), remove };
  let dragged = "";

  /** @param {{id: string, muted: boolean}} entry @param {number} at */
  function chip(entry, at) {
    const bot = botOf(store.state, entry.id);
    const name = bot?.name || t("Deleted bot");
    const main = h(
      "button",
      {
        type: "button",
        class: "chip-main",
        "aria-label": entry.muted ? t("Actions for {name} (muted)", { name }) : t("Actions for {name}", { name }),
        "aria-haspopup": "menu",
        disabled: !bot,
        on: { click: () => bot && menu(bot, main) },
      },
      monogram(name, bot?.color, "", pictureOf(bot)),
      h("span", { text: name }),
      entry.muted && icon("mic-off"),
      bot && icon("chevron-down"),
    );
    const element = h(
      "div",
      { class: `chip ${entry.muted ? "is-muted" : ""}`, draggable: "true", data: { bot: entry.id } },
      main,
      !bot && iconButton("x", t("Remove {name}", { name }), () => changes.remove(entry.id), { class: "chip-more" }),
    );
    element.addEventListener("keydown", (event) => {
      const by = alongReading(event.key);
      if (!event.altKey || !by) return;
      event.preventDefault();
      event.stopPropagation();
      changes.move(entry.id, at + by);
      /** @type {any} */ (place.querySelector(`[data-bot="${entry.id}"] .chip-main`))?.focus();
    });
    element.addEventListener("dragstart", (event) => {
      dragged = entry.id;
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", name);
    });
    element.addEventListener("dragover", (event) => {
      if (!dragged || dragged === entry.id) return;
      event.preventDefault();
      element.classList.add("is-target");
    });
    element.addEventListener("dragleave", () => element.classList.remove("is-target"));
    element.addEventListener("dragend", () => {
      dragged = "";
    });
    element.addEventListener("drop", (event) => {
      event.preventDefault();
      element.classList.remove("is-target");
      if (dragged) changes.move(dragged, at);
      dragged = "";
    });
    return element;
  }

  /** It can be brought back to its place, as it was. @param {string} id */
  function remove(id) {
    const session = store.state.session;
    const at = session?.bots.findIndex((one) => one.id === id) ?? -1;
    if (!session || at < 0) return;
    const entry = session.bots[at];
    roomChanges(store, room).remove(id);
    const name = botOf(store.state, id)?.name || t("Deleted bot");
    toast(entry.notes ? t("{name} left, with its notes.", { name }) : t("{name} left.", { name }), {
      action: t("Undo"),
      onAction() {
        const now = store.state.session;
        if (now && now.id === session.id && !now.bots.some((one) => one.id === id))
          room.change({ bots: [...now.bots.slice(0, at), entry, ...now.bots.slice(at)] });
      },
    });
  }

  /** @param {Bot} bot @param {HTMLElement} anchor */
  async function menu(bot, anchor) {
    (await import("../bots/bot-menus.js")).openBotMenu(store, bot, anchor, changes, { ...page, knows });
  }

  /** @param {string} id */
  async function knows(id) {
    (await import("../memory/knowledge.js")).openKnowledge(store, room, id);
  }

  /** @type {any[]} */
  let built = [];
  let fittedBeside = "";

  function update() {
    const { session, bots } = store.state;
    const from = [session?.id, bots, JSON.stringify(session?.bots)];
    if (from.every((value, at) => value === built[at])) {
      if (session && session.title !== fittedBeside) fit();
      return;
    }
    built = from;
    if (!session) {
      place.replaceChildren();
      return;
    }
    const add = h("button", {
      type: "button",
      class: "chip-add",
      "aria-haspopup": "menu",
      text: t("+ Bot"),
      on: {
        click: async () => (await import("../bots/bot-menus.js")).openAddMenu(store, add, changes, page),
      },
    });
    const stack = h(
      "button",
      {
        type: "button",
        class: "chip-stack",
        "aria-label": tn("{count} bot in this session", "{count} bots in this session", session.bots.length),
        title: t("Bots in this session"),
        on: { click: page.openBots },
      },
      ...session.bots.slice(0, 3).map((entry) => {
        const bot = botOf(store.state, entry.id);
        return monogram(bot?.name || "?", bot?.color, entry.muted ? "is-muted" : "", pictureOf(bot));
      }),
      session.bots.length > 3 && h("span", { class: "more-bots", text: `+${session.bots.length - 3}` }),
      session.bots.length === 0 && icon("user-plus"),
    );
    place.replaceChildren(h("div", { class: "chip-row" }, ...session.bots.map(chip)), add, stack);
    fit();
  }

  /** Where there is no room for all and the title, the chips have short names, then monograms alone. */
  function fit() {
    const row = place.firstElementChild;
    const title = byId("title");
    fittedBeside = store.state.session?.title || "";
    for (const how of ["", "is-close", "is-tight"]) {
      place.className = how;
      const cut = [row, title.firstElementChild].some((one) => one && one.scrollWidth > one.clientWidth + 1);
      const isLong = title.clientWidth > 0.4 * byId("head").clientWidth; // enough of it can be read
      if (row && (!cut || (isLong && row.scrollWidth <= row.clientWidth + 1))) break;
    }
  }

  new ResizeObserver(fit).observe(byId("head"));
  store.on(["session", "bots"], update);
  return { ...changes, knows, menu };
}
