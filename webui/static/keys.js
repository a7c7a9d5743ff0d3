// @ts-check
/** The keyboard: every shortcut in one table, and the dialog that lists them. */

import { dialogIsOpen, openDialog } from "./dialogs.js";
import { h } from "./dom.js";
import { isComposing, isTyping } from "./input.js";
import { menuIsOpen } from "./menu.js";

const LIST = [
  ["Enter", "Send"], ["Shift Enter", "New line"], ["Ctrl Enter", "Send, also on a touch screen"],
  ["Esc", "Close, leave an edit, or stop the reply"], ["↑", "In an empty box: edit your last message"],
  ["Alt Enter", "Continue the last reply"], ["← →", "Outside a box: other versions of a message"],
  ["Ctrl Shift C", "Copy the last reply"], ["Ctrl K", "Search sessions"], ["Ctrl Shift O", "New session"],
  ["Ctrl B", "Sessions panel"], ["Ctrl ,", "Settings panel"], ["Ctrl /", "This list"],
  ["Alt ← →", "On a bot above the chat: move it"],
];

export function openKeyList() {
  openDialog("Keyboard", [h("dl", { class: "keys" }, ...LIST.map(([keys, what]) => h("div", {},
    h("dt", {}, ...keys.split(" ").map((key) => h("kbd", { text: key }))), h("dd", { text: what }))))]);
}

/**
 * @param {{escape: () => void, proceed: () => void, search: () => void, create: () => void, left: () => void,
 *   right: () => void, copyLast: () => void, version: (by: number) => void}} page
 */
export function listenToKeys(page) {
  const table = {
    "alt+enter": page.proceed, "ctrl+k": page.search, "ctrl+shift+o": page.create, "ctrl+b": page.left, "ctrl+,": page.right,
    "ctrl+/": openKeyList, "ctrl+shift+c": page.copyLast,
  };
  document.addEventListener("keydown", (event) => {
    if (isComposing(event) || event.defaultPrevented || dialogIsOpen() || menuIsOpen()) return;
    const name = [(event.ctrlKey || event.metaKey) && "ctrl", event.altKey && "alt", event.shiftKey && "shift",
      event.key.toLowerCase()].filter(Boolean).join("+");
    if (name === "escape") page.escape();
    else if (name in table) {
      event.preventDefault();
      table[name]();
    } else if ((name === "arrowleft" || name === "arrowright") && !isTyping(event.target) && !inWidget(event.target)) {
      event.preventDefault();
      page.version(name === "arrowleft" ? -1 : 1);
    }
  });
}

/** Whether the arrow keys already mean something here. @param {EventTarget | null} target */
function inWidget(target) {
  return target instanceof HTMLElement && target.closest("[role=tablist], [role=menu], [role=radiogroup], pre, .table-scroll") !== null;
}
