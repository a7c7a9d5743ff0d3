// @ts-check
/**
 * Where what is said goes: to this machine alone, or to the hosts of other engines. Knows no element.
 * @import { Bot, State } from "../types.js"
 */

import { listed } from "../base/format.js";
import { t } from "../base/language.js";
import { botOf } from "./store.js";

/** The host at which a bot's replies are written; "" is here. @param {State} state @param {Bot | null} bot */
export function hostOf(state, bot) {
  if (!bot?.engine) return state.status?.model?.host || "";
  const { id } = bot.engine;
  return (state.settings?.engines || []).find((engine) => engine.id === id)?.host || t("an engine that is not known");
}

/**
 * The hosts of the session's bots that may speak, in their order, each with the names of its bots.
 * @param {State} state
 * @returns {Map<string, string[]>}
 */
export function hostsOf(state) {
  const hosts = new Map();
  const bots = (state.session?.bots || []).filter((entry) => !entry.muted).map((entry) => botOf(state, entry.id));
  const speakers = /** @type {Bot[]} */ (bots.filter(Boolean));
  for (const bot of speakers) {
    const host = hostOf(state, bot);
    hosts.set(host, [...(hosts.get(host) || []), bot.name]);
  }
  if (!speakers.length) hosts.set(hostOf(state, null), []);
  return hosts;
}

/** A sentence about it; "" while nothing leaves this machine. @param {State} state */
export function whereTextGoes(state) {
  const hosts = hostsOf(state);
  const others = [...hosts.keys()].filter(Boolean);
  if (!others.length) return "";
  const parts = others.map((host) => `${host} (${(hosts.get(host) || []).join(", ")})`);
  return t("What is said here goes to {hosts}.", { hosts: hosts.size === 1 ? others[0] : listed(parts) });
}
