// @ts-check
/**
 * Which changes to the bots of a session there are: the chips and the Bot tab share them.
 * @import { Store } from "./store.js"
 * @import { Room } from "./room.js"
 */

import { announce } from "../base/announce.js";
import { t } from "../base/language.js";
import { botOf } from "./store.js";

/** @param {Store} store @param {Room} room */
export function roomChanges(store, room) {
  const entries = () => store.state.session?.bots || [];
  const change = (bots) => room.change({ bots });
  const nameOf = (id) => botOf(store.state, id)?.name || t("The bot");
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
      announce(
        t("{name} is now number {place} of {all}.", { name: nameOf(id), place: place + 1, all: others.length + 1 }),
      );
    },
  };
}

/** @typedef {ReturnType<typeof roomChanges>} RoomChanges */
