// @ts-check
/**
 * The menus of bots: what can be done with one in the room, and which others there are to bring in.
 * @import { Bot, Session } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { RoomChanges } from "../session/room-changes.js"
 */

import { byId } from "../base/dom.js";
import { t } from "../base/language.js";
import { closeTop } from "../overlays/back.js";
import { openMenu } from "../overlays/menu.js";
import { inShort } from "../session/store.js";
import { whisperTo } from "../session/whisper.js";

/**
 * The menu of one bot in the room.
 * @param {Store} store @param {Bot} bot @param {HTMLElement} anchor @param {RoomChanges} changes
 * @param {{speak: (id: string) => void, editBot: (bot: Bot) => void, knows: (id: string) => void,
 *   inspect: (which: {bot: string}) => void}} page
 */
export function openBotMenu(store, bot, anchor, changes, page) {
  const session = /** @type {Session} */ (store.state.session);
  const at = session.bots.findIndex((entry) => entry.id === bot.id);
  const muted = session.bots[at]?.muted;
  const several = session.bots.length > 1;
  const isInRow = !anchor.closest("aside"); // the Bot tab moves them up and down
  openMenu(anchor, t("Actions for {name}", bot), [
    { label: t("Let {name} speak", bot), icon: "message-circle", onSelect: () => page.speak(bot.id) },
    several && {
      label: t("Whisper to {name}", { name: bot.name }),
      icon: "lock",
      onSelect: () => {
        whisperTo(store, [bot.id]);
        closeTop(); // the drawer, if it was opened there
        byId("text").focus();
      },
    },
    several && {
      label: muted ? t("Unmute") : t("Mute"),
      icon: muted ? "mic" : "mic-off",
      help: muted ? t("It answers again when its turn comes.") : t("It stays in the room and keeps quiet."),
      onSelect: () => changes.mute(bot.id),
    },
    several && isInRow && {
      label: t("Move left"),
      icon: "arrow-left",
      disabled: at === 0,
      onSelect: () => changes.move(bot.id, at - 1),
    },
    several && isInRow && {
      label: t("Move right"),
      icon: "arrow-right",
      disabled: at === session.bots.length - 1,
      onSelect: () => changes.move(bot.id, at + 1),
    },
    { label: t("Edit"), icon: "pencil", onSelect: () => page.editBot(bot) },
    {
      label: t("What it knows"),
      icon: "info",
      help: session.bots[at]?.since ? t("It came in late.") : t("All that was said, and notes of its own."),
      onSelect: () => page.knows(bot.id),
    },
    { label: t("What it is sent"), icon: "file-text", onSelect: () => page.inspect({ bot: bot.id }) },
    "line",
    { label: t("Remove from this session"), icon: "x", onSelect: () => changes.remove(bot.id) },
  ]);
}

/**
 * The menu that adds a bot.
 * @param {Store} store @param {HTMLElement} anchor @param {RoomChanges} changes
 * @param {{editBot: (bot: Bot | null) => void}} page
 */
export function openAddMenu(store, anchor, changes, page) {
  const inside = new Set((store.state.session?.bots || []).map((entry) => entry.id));
  const others = store.state.bots.filter((bot) => !inside.has(bot.id));
  openMenu(anchor, t("Add a bot"), [
    others.length ? { heading: t("Bring into this session") } : null,
    ...others.map((bot) => ({ label: bot.name, help: inShort(bot), onSelect: () => changes.add(bot.id) })),
    others.length ? "line" : null,
    { label: t("New bot"), icon: "plus", onSelect: () => page.editBot(null) },
  ]);
}
