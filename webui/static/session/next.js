// @ts-check
/**
 * Who answers next, as far as the page can tell before the server decides: whom the text names, or whose
 * turn it is.
 * @import { Bot, Message, Session } from "../types.js"
 */

import { t } from "../base/language.js";

/**
 * The bots that a text names as words of their own, in the order of naming.
 * @param {string} text @param {Bot[]} bots
 */
export function mentioned(text, bots) {
  const folded = text.toLowerCase();
  const places = bots.map((bot) => ({ bot, at: placeOf(folded, bot.name.toLowerCase()) }));
  return places
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at)
    .map(({ bot }) => bot);
}

/** Not every script parts its words by spaces. @param {string} text @param {string} name */
function placeOf(text, name) {
  if (!/^[\x20-\x7e]+$/.test(name)) return text.indexOf(name);
  const escaped = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return text.search(new RegExp(`(?<![\\p{L}\\p{N}_])${escaped}(?![\\p{L}\\p{N}_])`, "u"));
}

/**
 * Names, or what decides instead.
 * @param {Session} session @param {Bot[]} bots those of the session, in its order
 * @param {string} text what is typed @param {string[] | null} [audience] whom it is for; null: all
 * @param {Message[]} [path] what was said before
 */
export function whoIsNext(session, bots, text, audience = null, path = []) {
  const order = session.turn_order;
  const present = bots.filter(
    ({ id }) =>
      (audience?.includes(id) ?? true) && session.bots.some((entry) => entry.id === id && !entry.muted),
  );
  if (order === "manual") return t("whom you choose");
  if (order === "model" && present.length !== 1) return t("the model decides");
  if (order === "all") return t("everyone once");
  const named = mentioned(text, present);
  const names = order === "mention" ? named : named.slice(0, 1);
  const last = audience && path.findLast((message) => message.author !== "user")?.author;
  const at = present.findIndex((bot) => bot.id === last);
  const place = order === "mention" ? Math.max(0, at) : (at + 1) % present.length;
  const turn = audience ? present.slice(place, place + 1) : present.filter((bot) => (session.next || []).includes(bot.id));
  const next = names.length ? names : turn;
  const shown = next.length ? next : present.slice(0, 1);
  return shown.map((bot) => bot.name).join(", ") || t("nobody");
}
