// @ts-check
/**
 * What a session shows before its first message: who there is to talk with. Nothing is saved until something
 * is said.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { byId, h, icon, iconButton, monogram } from "../base/dom.js";
import { listed } from "../base/format.js";
import { t, together } from "../base/language.js";
import { post } from "../server/api.js";
import { whereTextGoes } from "../session/hosts.js";
import { beginning } from "../session/saving.js";
import { inShort, pictureOf } from "../session/store.js";

/**
 * @param {Store} store @param {Room} room
 * @param {{editBot: (bot: null) => void, fill: (text: string) => void}} page
 */
export function createWelcome(store, room, page) {
  const place = byId("welcome");

  /** @param {string} id */
  function toggle(id) {
    const bots = store.state.session?.bots || [];
    const chosen = bots.some((entry) => entry.id === id);
    room.change({ bots: chosen ? bots.filter((entry) => entry.id !== id) : [...bots, { id, muted: false }] });
  }

  /** @param {import("../types.js").Bot} bot @param {boolean} chosen */
  function card(bot, chosen) {
    return h(
      "button",
      {
        type: "button",
        class: `bot-card ${chosen ? "is-chosen" : ""}`,
        "aria-pressed": String(chosen),
        data: { bot: bot.id },
        on: { click: () => toggle(bot.id) },
      },
      monogram(bot.name, bot.color, "big", pictureOf(bot)),
      h(
        "span",
        { class: "bot-text" },
        h("span", { class: "bot-name", text: bot.name }),
        h("span", { class: "help", text: inShort(bot) }),
      ),
      chosen && icon("check"),
    );
  }

  /**
   * What a bot will have said before the first words to it; of several greetings one is chosen.
   * @param {import("../types.js").Bot} bot @param {string} user
   */
  function greeting(bot, user) {
    const texts = told.texts[bot.id] || greetingsOf(bot, user);
    if (!texts.length) return null;
    const chosen = store.state.session?.greetings || {};
    const at = texts[chosen[bot.id]] ? chosen[bot.id] : 0;
    const arrow = (side, label, by) => {
      const to = (at + by + texts.length) % texts.length;
      const choose = () => room.change({ greetings: { ...chosen, [bot.id]: to } });
      return iconButton(`chevron-${side}`, label, choose, { data: { bot: bot.id + side } });
    };
    return h(
      "p",
      { class: "greeting" },
      monogram(bot.name, bot.color, "", pictureOf(bot)),
      h(
        "span",
        { dir: "auto" }, // of what it says: what has a direction of its own does not count
        h("span", { class: "name", dir: "auto", text: bot.name }),
        texts.length > 1 &&
          h(
            "span",
            { class: "versions", dir: document.documentElement.dir || "ltr" },
            arrow("left", t("Previous greeting of {name}", bot), -1),
            h("span", { class: "tabular", text: t("{number} of {all}", { number: at + 1, all: texts.length }) }),
            arrow("right", t("Next greeting of {name}", bot), 1),
          ),
        ` ${texts[at]}`,
      ),
    );
  }

  /** What the server made of the greetings, and of which it did. */
  let told = { key: "", texts: /** @type {Record<string, string[]>} */ ({}) };

  /**
   * Have the greetings as they will be said, where that cannot be told here: dice and hours stand in them, or
   * there are some for groups. @param {import("../types.js").Session} session
   * @param {import("../types.js").Bot[]} inside @param {string} user
   */
  async function ask(session, inside, user) {
    const body = beginning(session);
    const key = JSON.stringify([body.bots, user, body.seed, inside.map(({ revision }) => revision)]);
    if (key === told.key) return;
    told = { key, texts: {} };
    const texts = inside.flatMap((bot) => greetingsOf(bot, user));
    if (!texts.some((text) => text.includes("{{")) && (inside.length < 2 || !texts.length)) return;
    const answer = await post("/api/sessions/greetings", body).catch(() => null); // else they stay as they are
    if (!answer || told.key !== key) return;
    told.texts = answer.greetings;
    built = [];
    update();
  }

  /** @type {any[]} */
  let built = [];

  function update() {
    const { session, bots, live, loading, outgoing } = store.state;
    const show = Boolean(session && !session.leaf && !live.size && !loading && !outgoing);
    place.hidden = !show;
    byId("main").classList.toggle("is-empty", show);
    if (!show) {
      built = [];
      return;
    }
    const where = whereTextGoes(store.state) ? "" : t("Everything stays on this machine."); // else above the composer
    const from = [session?.id, bots, JSON.stringify([session?.bots, session?.greetings]), session?.user_name, where];
    if (from.every((value, at) => value === built[at])) return;
    built = from;
    const inside = new Set((session?.bots || []).map((entry) => entry.id));
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset?.bot;
    const several = inside.size > 1;
    const user = session?.user_name || "User";
    const present = bots.filter((bot) => inside.has(bot.id));
    const chosen = present.map((bot) => bot.name);
    const unsaid = session && !session.id ? present : []; // one that was made has said its greetings
    if (session && unsaid.length) ask(session, unsaid, user);
    place.replaceChildren(
      h("h2", { text: t("Who would you like to talk with?") }),
      h("p", {
        class: "soft",
        text: together(t("Choose one, or several for a room in which they also talk with each other."), where),
      }),
      h(
        "div",
        { class: "bot-cards" },
        ...bots.map((bot) => card(bot, inside.has(bot.id))),
        h(
          "button",
          { type: "button", class: "bot-card is-new", on: { click: () => page.editBot(null) } },
          h("span", { class: "monogram big new-mark", "aria-hidden": "true" }, icon("plus")),
          h(
            "span",
            { class: "bot-text" },
            h("span", { class: "bot-name", text: t("New bot") }),
            h("span", { class: "help", text: t("Give it a name and a character.") }),
          ),
        ),
      ),
      ...unsaid.map((bot) => greeting(bot, user)).filter(Boolean),
      chosen.length
        ? h(
            "div",
            { class: "starters", role: "group", "aria-label": t("Ways to begin") },
            ...starters(several, chosen).map((text) =>
              h("button", { type: "button", class: "starter", text, on: { click: () => page.fill(text) } }),
            ),
          )
        : h("p", { class: "soft", text: t("Nobody is chosen yet.") }),
    );
    if (focused) /** @type {any} */ (place.querySelector(`[data-bot="${focused}"]`))?.focus();
  }

  store.on(["session", "bots", "live", "loading", "outgoing", "status", "settings"], update);
  update();
}

/**
 * What a bot may begin with, with the names filled in.
 * @param {import("../types.js").Bot} bot @param {string} user
 */
const greetingsOf = (bot, user) =>
  [bot.greeting, ...(bot.alternate_greetings || [])]
    .filter((text) => text.trim())
    .map((text) => text.replaceAll("{{char}}", bot.nickname || bot.name).replaceAll("{{user}}", user));

/** @param {boolean} several @param {string[]} names */
function starters(several, names) {
  return several
    ? [
        t("Hello {names}!", { names: listed(names) }),
        t("{one}, ask {other} a question.", { one: names[0], other: names[1] }),
      ]
    : [t("Hello {name}, who are you?", { name: names[0] }), t("Tell me a short story."), t("What can you do?")];
}
