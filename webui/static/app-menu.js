// @ts-check
/**
 * The menu of the page itself: the theme, models, an import, the keys, and the way out.
 * @import { Store } from "./session/store.js"
 * @import { Room } from "./session/room.js"
 */

import { iconButton } from "./base/dom.js";
import { chooseTheme, chosenTheme } from "./base/theme.js";
import { post } from "./server/api.js";
import { openMenu } from "./overlays/menu.js";
import { toastError } from "./overlays/toast.js";

/**
 * @param {Store} store @param {Room} room
 * @param {{openModels: () => void, importSession: () => void, openKeyList: () => void,
 *   openOtherDevices: () => void}} page
 */
export function appMenuButton(store, room, page) {
  async function logOut() {
    await room.flushPatch();
    if (await post("/api/logout").catch(toastError)) location.reload();
  }

  function open() {
    const theme = chosenTheme();
    const choice = (value, label) => ({ label, checked: theme === value, onSelect: () => chooseTheme(value) });
    openMenu(button, "Parlor", [
      { heading: "Theme" },
      choice("system", "As the system"),
      choice("light", "Light"),
      choice("dark", "Dark"),
      "line",
      { label: "Models", icon: "armchair", onSelect: page.openModels },
      { label: "Import a session", icon: "upload", onSelect: page.importSession },
      { label: "Keyboard", icon: "keyboard", onSelect: page.openKeyList },
      store.state.settings?.address_for_others && {
        label: "On another device",
        icon: "monitor",
        onSelect: page.openOtherDevices,
      },
      store.state.settings?.password && { label: "Log out", icon: "log-out", onSelect: logOut },
    ]);
  }

  const button = iconButton("ellipsis", "Menu", open, { "aria-haspopup": "menu" });
  return button;
}
