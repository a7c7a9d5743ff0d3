// @ts-check
/**
 * The bots of the session at the head of the page, in the order in which they speak. A click lets one speak; its
 * menu (or dragging, or Alt with the arrow keys) mutes, moves, edits and removes it.
 * @import { Bot, Session } from "./types.js"
 * @import { Store } from "./store.js"
 * @import { Room } from "./room.js"
 */

import { byId, h, icon, monogram } from "./dom.js";
import { openMenu } from "./menu.js";
import { announce } from "./announce.js";
import { botOf } from "./store.js";

/** Which changes to the room there are; the chips and the Bot tab share them. @param {Store} store @param {Room} room */
export function roomChanges(store, room) {
  const entries = () => store.state.session?.bots || [];
  const change = (bots) => room.change({ bots });
  const nameOf = (id) => botOf(store.state, id)?.name || "The bot";
  return {
    /** @param {string} id */
    add: (id) => change([...entries(), { id, muted: false }]),
    /** @param {string} id */
    remove: (id) => change(entries().filter((entry) => entry.id !== id)),
    /** @param {string} id */
    mute: (id) => change(entries().map((entry) => (entry.id === id ? { ...entry, muted: !entry.muted } : entry))),
    /** @param {string} id @param {number} to place in the room */
    move(id, to) {
      const others = entries().filter((entry) => entry.id !== id);
      const entry = entries().find((one) => one.id === id);
      const place = Math.max(0, Math.min(to, others.length));
      if (!entry || entries().indexOf(entry) === place) return;
      change([...others.slice(0, place), entry, ...others.slice(place)]);
      announce(`${nameOf(id)} is now number ${place + 1} of ${others.length + 1}.`);
    },
  };
}

/** @typedef {ReturnType<typeof roomChanges>} RoomChanges */

/**
 * The menu of one bot in the room.
 * @param {Session} session @param {Bot} bot @param {HTMLElement} anchor @param {RoomChanges} changes
 * @param {{speak: (id: string) => void, editBot: (bot: Bot) => void}} page
 */
export function openBotMenu(session, bot, anchor, changes, page) {
  const at = session.bots.findIndex((entry) => entry.id === bot.id);
  const muted = session.bots[at]?.muted;
  const several = session.bots.length > 1;
  openMenu(anchor, `Actions for ${bot.name}`, [
    { label: `Let ${bot.name} speak`, icon: "message-circle", onSelect: () => page.speak(bot.id) },
    several && {
      label: muted ? "Unmute" : "Mute",
      icon: muted ? "mic" : "mic-off",
      help: muted ? "It answers again when its turn comes." : "It stays in the room and keeps quiet.",
      onSelect: () => changes.mute(bot.id),
    },
    several && {
      label: "Move left",
      icon: "arrow-left",
      disabled: at === 0,
      onSelect: () => changes.move(bot.id, at - 1),
    },
    several && {
      label: "Move right",
      icon: "arrow-right",
      disabled: at === session.bots.length - 1,
      onSelect: () => changes.move(bot.id, at + 1),
    },
    { label: "Edit", icon: "pencil", onSelect: () => page.editBot(bot) },
    "line",
    { label: "Remove from this session", icon: "x", onSelect: () => changes.remove(bot.id) },
  ]);
}

/**
 * The menu that adds a bot.
 * @param {Store} store @param {HTMLElement} anchor @param {RoomChanges} changes @param {{editBot: (bot: Bot | null) => void}} page
 */
export function openAddMenu(store, anchor, changes, page) {
  const inside = new Set((store.state.session?.bots || []).map((entry) => entry.id));
  const others = store.state.bots.filter((bot) => !inside.has(bot.id));
  openMenu(anchor, "Add a bot", [
    others.length ? { heading: "Bring into this session" } : null,
    ...others.map((bot) => ({ label: bot.name, help: inShort(bot), onSelect: () => changes.add(bot.id) })),
    others.length ? "line" : null,
    { label: "New bot", icon: "plus", onSelect: () => page.editBot(null) },
  ]);
}

/** Who a bot is, in a few words: the first sentence of its persona, without the "You are Marlow," before it. @param {Bot} bot */
export function inShort({ name, persona }) {
  const [first] = persona
    .replaceAll("{{char}}", name)
    .replaceAll("{{user}}", "you")
    .trim()
    .split(/(?<=[.!?])\s|(?<=[。！？])|\n/);
  const said = first.startsWith(`You are ${name}, `) ? first.slice(`You are ${name}, `.length) : first;
  const text = said.length > 90 ? `${said.slice(0, 88).trimEnd()}…` : said;
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * @param {Store} store
 * @param {Room} room
 * @param {{speak: (id: string) => void, editBot: (bot: Bot | null) => void, openBots: () => void}} page
 */
export function createChips(store, room, page) {
  const place = byId("chips");
  const changes = roomChanges(store, room);
  let dragged = "";

  /** @param {{id: string, muted: boolean}} entry @param {number} at */
  function chip(entry, at) {
    const bot = botOf(store.state, entry.id);
    const name = bot?.name || "Deleted bot";
    const speak = h(
      "button",
      {
        type: "button",
        class: "chip-main",
        title: `Let ${name} speak`,
        "aria-label": `Let ${name} speak${entry.muted ? " (muted)" : ""}`,
        disabled: !bot,
        on: { click: () => page.speak(entry.id) },
      },
      monogram(name, bot?.color),
      h("span", { text: name }),
      entry.muted && icon("mic-off"),
    );
    const more = h(
      "button",
      {
        type: "button",
        class: "chip-more",
        "aria-label": `Actions for ${name}`,
        "aria-haspopup": "menu",
        on: {
          click: () =>
            bot
              ? openBotMenu(/** @type {any} */ (store.state.session), bot, more, changes, page)
              : changes.remove(entry.id),
        },
      },
      icon(bot ? "chevron-down" : "x"),
    );
    const element = h(
      "div",
      { class: `chip ${entry.muted ? "is-muted" : ""}`, draggable: "true", data: { bot: entry.id } },
      speak,
      more,
    );
    element.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
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

  /** @type {any[]} */
  let built = [];

  function update() {
    const { session, bots } = store.state;
    const from = [session?.id, bots, JSON.stringify(session?.bots)];
    if (from.every((value, at) => value === built[at])) return;
    built = from;
    if (!session) {
      place.replaceChildren();
      return;
    }
    const add = h("button", {
      type: "button",
      class: "chip-add",
      "aria-haspopup": "menu",
      text: "+ Bot",
      on: { click: () => openAddMenu(store, add, changes, page) },
    });
    const stack = h(
      "button",
      {
        type: "button",
        class: "chip-stack",
        "aria-label": `${session.bots.length} bots in this session`,
        title: "Bots in this session",
        on: { click: page.openBots },
      },
      ...session.bots.slice(0, 3).map((entry) => {
        const bot = botOf(store.state, entry.id);
        return monogram(bot?.name || "?", bot?.color, entry.muted ? "is-muted" : "");
      }),
      session.bots.length > 3 && h("span", { class: "more-bots", text: `+${session.bots.length - 3}` }),
      session.bots.length === 0 && icon("user-plus"),
    );
    place.replaceChildren(h("div", { class: "chip-row" }, ...session.bots.map(chip), add), stack);
    fit();
  }

  /** Where there is no room for all their names, the chips show monograms alone. */
  function fit() {
    place.classList.remove("is-tight");
    const row = place.firstElementChild;
    if (row && row.scrollWidth > row.clientWidth + 1) place.classList.add("is-tight");
  }

  new ResizeObserver(fit).observe(byId("head"));
  store.on(["session", "bots"], update);
  return changes;
}
