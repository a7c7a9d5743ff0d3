// @ts-check
/** The keyboard: every shortcut in one table. key-list.js shows them. */

import { alongReading, isComposing, isTyping } from "./base/input.js";
import { menuIsOpen } from "./overlays/menu.js";

const UNDOES = ["ctrl+z", "ctrl+shift+z", "ctrl+y"];

/**
 * @param {{escape: () => void, proceed: () => void, search: () => void, create: () => void,
 *   find: () => void, timeline: () => void, toBeginning: () => void, toEnd: () => void, left: () => void,
 *   right: () => void, copyLast: () => void, retrace: (way: "undo" | "redo") => void, list: () => void,
 *   version: (by: number) => void}} page
 */
export function listenToKeys(page) {
  const table = {
    "alt+enter": page.proceed,
    "ctrl+k": page.search,
    "ctrl+f": page.find,
    "ctrl+.": page.timeline,
    "ctrl+shift+o": page.create,
    "ctrl+b": page.left,
    "ctrl+,": page.right,
    "ctrl+/": page.list,
    "ctrl+shift+c": page.copyLast,
    "ctrl+z": () => page.retrace("undo"),
    "ctrl+shift+z": () => page.retrace("redo"),
    "ctrl+y": () => page.retrace("redo"),
  };
  document.addEventListener("keydown", (event) => {
    if (isComposing(event) || event.defaultPrevented || document.querySelector("dialog[open]") || menuIsOpen()) return;
    const name = [
      (event.ctrlKey || event.metaKey) && "ctrl",
      event.altKey && "alt",
      event.shiftKey && "shift",
      event.key.toLowerCase(),
    ]
      .filter(Boolean)
      .join("+");
    if (UNDOES.includes(name) && isTyping(event.target)) return; // of what is typed, by the browser
    if (name === "ctrl+f" && document.activeElement?.closest(".find")) return; // the browser's own
    if (name === "escape") page.escape();
    else if (name in table) {
      event.preventDefault();
      table[name]();
    } else if ((name === "ctrl+home" || name === "ctrl+end") && !hasText(event.target)) {
      event.preventDefault();
      if (name === "ctrl+home") page.toBeginning();
      else page.toEnd();
    } else if (
      (name === "arrowleft" || name === "arrowright") && // with no other key
      !isTyping(event.target) &&
      !inWidget(event.target)
    ) {
      event.preventDefault();
      page.version(alongReading(event.key));
    }
  });
}

/** Whether the key moves within what was typed. @param {EventTarget | null} target */
const hasText = (target) => isTyping(target) && /** @type {HTMLInputElement} */ (target).value !== "";

const WIDGETS = "button, a, summary, select, input, [role=tablist], [role=menu], [role=radiogroup], pre, .table-scroll";

/**
 * Whether the arrow keys mean something here, or nothing; the arrows between versions do.
 * @param {EventTarget | null} target
 */
function inWidget(target) {
  return target instanceof HTMLElement && target.closest(WIDGETS) !== null && !target.closest(".versions");
}
