// @ts-check
/**
 * Who answers, as menus of the composer: whose turn it is after a message, and how long the bots talk.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h, icon } from "../base/dom.js";
import { t, tn } from "../base/language.js";
import { whoIsNext } from "../session/next.js";
import { botsInRoom } from "../session/store.js";
import { audienceText } from "../session/whisper.js";
import { openMenu } from "../overlays/menu.js";
import { chooseAudience } from "./whisper-line.js";

const TURNS = [2, 4, 6, 10, 20, 50];

/**
 * @param {Store} store
 * @param {Room} room
 * @param {{sent: () => void, speak: (botId: string) => void}} page
 */
export function createTurnMenus(store, room, page) {
  const button = (extra, onClick) =>
    h("button", {
      type: "button",
      class: `text-button has-menu ${extra}`,
      "aria-haspopup": "menu",
      on: { click: onClick },
    });
  const next = button("next", nextMenu);
  const talk = button("talk", talkMenu);
  talk.append(
    h("span", { class: "wide-only", text: t("Let them talk") }),
    h("span", { class: "narrow-only", text: t("Talk") }),
    icon("chevron-down"),
  );

  function nextMenu() {
    const { session, settings, audience } = store.state;
    if (!session || !settings) return;
    openMenu(next, t("Who answers next"), [
      { heading: t("After your message") },
      ...settings.turn_orders.map(({ id, label, help }) => ({
        label,
        help,
        checked: id === session.turn_order,
        onSelect: () => room.change({ turn_order: id }),
      })),
      "line",
      {
        label: t("Only for some…"),
        icon: "lock",
        help: audienceText(store.state, { author: "user", for: audience }) || t("A whisper: no other bot is sent it."),
        onSelect: () => chooseAudience(store),
      },
      "line",
      { heading: t("Right now") },
      ...botsInRoom(store.state).map((bot) => ({
        label: t("Let {name} speak", bot),
        icon: "message-circle",
        onSelect: () => page.speak(bot.id),
      })),
    ]);
  }

  function talkMenu() {
    openMenu(talk, t("Let them talk"), [
      { heading: t("Among themselves, until you stop them") },
      ...TURNS.map((turns) => ({
        label: tn("{count} turn", "{count} turns", turns),
        onSelect: () => {
          page.sent();
          room.reply("next", { turns });
        },
      })),
    ]);
  }

  return {
    buttons: [next, talk],
    /** @param {string} text what is typed: it may name somebody */
    update(text) {
      const { session, settings, audience } = store.state;
      const several = botsInRoom(store.state).length > 1;
      next.hidden = !several || !settings;
      talk.hidden = !several;
      if (!session || next.hidden) return;
      const label = t("Next: {names}", {
        names: whoIsNext(session, botsInRoom(store.state), text, audience, room.path()),
      });
      if (label !== next.textContent) next.replaceChildren(h("span", { text: label }), icon("chevron-down"));
    },
  };
}
