// @ts-check
/**
 * The menu of the page itself: how it looks, models, an import, the keys, and the way out.
 * @import { Store } from "./session/store.js"
 * @import { Room } from "./session/room.js"
 */

import { iconButton } from "./base/dom.js";
import { t } from "./base/language.js";
import { recall } from "./base/storage.js";
import { post } from "./server/api.js";
import { openMenu } from "./overlays/menu.js";
import { toastError } from "./overlays/toast.js";

/**
 * @param {Store} store @param {Room} room
 * @param {{openModels: () => void, importSession: () => void, find: () => void, closeDrawer: () => void,
 *   transcript: ReturnType<import("./chat/transcript.js").createTranscript>, openKeyList: () => void}} page
 */
export function appMenuButton(store, room, page) {
  async function logOut() {
    await room.flushPatch();
    if (await post("/api/logout").catch(toastError)) location.reload();
  }

  async function openAppearance() {
    (await import("./overlays/appearance.js")).openAppearance(readAloud);
  }

  async function readAloud() {
    (await import("./chat/reader.js")).readAloud(store, room, page.transcript);
  }

  async function openYou() {
    (await import("./panels/you.js")).openYou(store, room);
  }

  async function compare() {
    (await import("./branches/side-by-side.js")).openCompare(store, room);
  }

  async function openOtherDevices() {
    const { openOtherDevices: open } = await import("./overlays/other-devices.js");
    open(store.state.settings?.address_for_others || "");
  }

  function toBeginning() {
    page.closeDrawer();
    page.transcript.toBeginning();
  }

  async function open() {
    const { retraceItems } = await import("./chat/retrace.js");
    openMenu(button, "Parlor", [
      ...retraceItems(store, room, page.closeDrawer),
      "line",
      { label: t("Models"), icon: "armchair", onSelect: page.openModels },
      { label: t("Import"), icon: "upload", onSelect: page.importSession },
      { label: t("Find in this chat"), icon: "search", onSelect: () => page.find() },
      { label: t("To the beginning of the chat"), icon: "arrow-up", onSelect: toBeginning },
      { label: t("Side by side"), icon: "message-circle", onSelect: compare },
      { label: t("Appearance"), icon: "sun", onSelect: openAppearance },
      { label: t("You"), icon: "users", onSelect: openYou },
      { label: t("Keyboard"), icon: "keyboard", onSelect: page.openKeyList },
      store.state.settings?.address_for_others && {
        label: t("On another device"),
        icon: "monitor",
        onSelect: openOtherDevices,
      },
      store.state.settings?.password && { label: t("Log out"), icon: "log-out", onSelect: logOut },
    ]);
  }

  if (recall("reader")) readAloud();
  const button = iconButton("ellipsis", t("Menu"), open, { "aria-haspopup": "menu" });
  return button;
}
