// @ts-check
/**
 * The page's state in one object, with listeners by key. Parts of the page read it and listen; only the
 * modules that talk to the server write it. Knows no element.
 * @import { Message, State } from "../types.js"
 */

import { t } from "../base/language.js";

export class Store {
  /** @type {State} */
  state = {
    status: null,
    slot: null,
    settings: null,
    bots: [],
    sessions: [],
    problems: [],
    query: "",
    words: [],
    selected: null,
    session: null,
    context: null,
    viewLeaf: null,
    live: new Map(),
    loading: true,
    editing: null,
    outgoing: null,
    audience: null,
    away: false,
  };

  /** @type {{keys: string[], listener: () => void}[]} */
  #listeners = [];

  /**
   * Change some keys and tell, once, everybody who listens to one of them.
   * @param {Partial<State>} changes
   */
  set(changes) {
    const changed = Object.keys(changes).filter((key) => this.state[key] !== changes[key]);
    Object.assign(this.state, changes);
    if (changed.length) this.#tell(changed);
  }

  /** Tell the listeners of a key whose object was changed in place. @param {...string} keys */
  touch(...keys) {
    this.#tell(keys);
  }

  /** @param {string[]} keys @param {() => void} listener */
  on(keys, listener) {
    this.#listeners.push({ keys, listener });
  }

  /** @param {string[]} changed */
  #tell(changed) {
    for (const { keys, listener } of this.#listeners) if (keys.some((key) => changed.includes(key))) listener();
  }
}

/** A bot by its id; one that was deleted since still has a name. @param {State} state @param {string} id */
export function botOf(state, id) {
  return state.bots.find((bot) => bot.id === id) || null;
}

/** Who said a message. @param {State} state @param {Message} message */
export function nameOf(state, message) {
  if (message.author === "user") return state.session?.user_name || t("You");
  return botOf(state, message.author)?.name || message.name || t("Somebody");
}

/** Where a bot's picture is; "" for one without. @param {import("../types.js").Bot | null} [bot] */
export const pictureOf = (bot) =>
  bot?.picture_version ? `/api/bots/${bot.id}/picture?v=${bot.picture_version}` : "";

/** The bots of the session that still exist, in speaking order. @param {State} state */
export function botsInRoom(state) {
  const bots = (state.session?.bots || []).map((entry) => botOf(state, entry.id));
  return /** @type {import("../types.js").Bot[]} */ (bots.filter(Boolean));
}

/**
 * Who a bot is, in a few words: the first sentence of its persona, without the "You are Marlow," before it.
 * @param {import("../types.js").Bot} bot
 */
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
