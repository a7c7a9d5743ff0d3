// @ts-check
/**
 * What can be done with a bot besides changing it: duplicate, export, delete with undo.
 * @import { Bot } from "../types.js"
 */

import { iconButton } from "../base/dom.js";
import { t } from "../base/language.js";
import { post, remove } from "../server/api.js";
import { openMenu } from "../overlays/menu.js";
import { toast, toastError } from "../overlays/toast.js";
import { download } from "../library/library.js";

/**
 * What can be done with a bot as it is saved.
 * @param {Bot} bot @param {() => void} leave @param {() => Promise<void>} reloadBots
 */
export function moreButton(bot, leave, reloadBots) {
  const open = () =>
    openMenu(button, t("Actions for {name}", bot), [
      { label: t("Duplicate"), icon: "copy", onSelect: duplicate },
      {
        label: t("Export as a character"),
        icon: "file-json",
        help: t("A card that other programs read, too."),
        onSelect: () => download(`/api/bots/${bot.id}/export`),
      },
      bot.picture_version && {
        label: t("Export as a picture"),
        icon: "download",
        help: t("The same card, within its picture."),
        onSelect: () => download(`/api/bots/${bot.id}/export?format=png`),
      },
    ]);
  const button = iconButton("ellipsis", t("More"), open, { "aria-haspopup": "menu" });

  async function duplicate() {
    const body = await post(`/api/bots/${bot.id}/duplicate`).catch(toastError);
    if (!body) return;
    leave();
    await reloadBots();
    toast(t("There is {name} now.", body.bot));
  }
  return button;
}

/** @param {() => Promise<void>} reloadBots @param {Bot} bot */
export async function deleteBot(reloadBots, bot) {
  const body = await remove(`/api/bots/${bot.id}`).catch(toastError);
  if (!body) return;
  await reloadBots();
  toast(t("Deleted {name}.", bot), {
    action: t("Undo"),
    onAction: async () => {
      await post("/api/bots/restore", { undo: body.undo }).catch(toastError);
      reloadBots();
    },
  });
}
