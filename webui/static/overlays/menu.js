// @ts-check
/**
 * Menus that open at a button: arrow keys, Home, End, first letters, Esc; focus goes back to the button.
 */

import { h, icon } from "../base/dom.js";
import { closesByBack } from "./back.js";

/**
 * @typedef {{label: string, help?: string, icon?: string, checked?: boolean, danger?: boolean,
 *   disabled?: boolean,
 *   onSelect: () => void}} Item
 */

/** Lower than this a menu is no use. */
const LEAST_PX = 140;

/** @type {{close: (refocus: boolean) => void, anchor: HTMLElement} | null} */
let current = null;

export const menuIsOpen = () => current !== null;

export function closeMenu() {
  current?.close(true);
}

/** @param {Item} item @param {(item: Item) => void} choose */
function itemButton(item, choose) {
  const radio = item.checked !== undefined;
  return h(
    "button",
    {
      type: "button",
      role: radio ? "menuitemradio" : "menuitem",
      tabindex: "0",
      class: `menu-item ${item.danger ? "danger" : ""}`,
      "aria-checked": radio ? String(item.checked) : null,
      disabled: item.disabled,
      on: { click: () => choose(item) },
    },
    radio ? h("span", { class: "menu-mark" }, item.checked && icon("check")) : item.icon && icon(item.icon),
    h(
      "span",
      { class: "menu-text" },
      h("span", { text: item.label }),
      item.help && h("span", { class: "help", text: item.help }),
    ),
  );
}

/**
 * Put the menu below its button, or above where there is no room; where there is none either, over it, unless
 * the button has to be seen: then the menu is as high as the room that there is.
 * @param {HTMLElement} menu @param {HTMLElement} anchor @param {boolean} [seen]
 */
export function place(menu, anchor, seen = false) {
  const box = [...anchor.getClientRects()].at(-1) || anchor.getBoundingClientRect();
  if (seen) menu.style.maxHeight = `${Math.max(LEAST_PX, box.top - 14, innerHeight - box.bottom - 14)}px`;
  const { offsetWidth: width, offsetHeight: height } = menu;
  const start = document.documentElement.dir === "rtl" ? box.right - width : box.left;
  const left = Math.max(8, Math.min(start, innerWidth - width - 8));
  const below = box.bottom + 6;
  const top = below + height <= innerHeight - 8 ? below : Math.max(8, box.top - height - 6);
  menu.style.left = `${left}px`;
  menu.style.top = `${top}px`;
}

/**
 * @param {HTMLElement} anchor
 * @param {string} label
 * @param {(Item | {heading: string} | "line" | null | false | undefined)[]} items
 */
export function openMenu(anchor, label, items) {
  const same = current?.anchor === anchor;
  closeMenu();
  if (same) return;
  const menu = h("div", { class: "menu", role: "menu", "aria-label": label, popover: "manual" });
  const choose = (item) => {
    close(true);
    item.onSelect();
  };
  for (const item of items) {
    if (!item) continue;
    if (item === "line") menu.append(h("div", { class: "menu-line", role: "separator" }));
    else if ("heading" in item)
      menu.append(h("div", { class: "menu-heading", role: "presentation", text: item.heading }));
    else menu.append(itemButton(item, choose));
  }
  (anchor.closest("dialog, main, aside") || document.body).append(menu);
  menu.showPopover();
  place(menu, anchor);
  anchor.setAttribute("aria-expanded", "true");

  const buttons = /** @type {HTMLButtonElement[]} */ ([...menu.querySelectorAll("button:not(:disabled)")]);
  const focus = (at) => buttons[(at + buttons.length) % buttons.length]?.focus();
  const close = (refocus) => {
    current = null;
    document.removeEventListener("pointerdown", outside, true);
    window.removeEventListener("resize", moved);
    endBack();
    menu.remove();
    anchor.setAttribute("aria-expanded", "false");
    if (refocus && anchor.isConnected) anchor.focus({ preventScroll: true });
  };
  const outside = (event) => {
    if (!menu.contains(event.target) && !anchor.contains(event.target)) close(false);
  };
  /** A phone's keyboard goes when the menu takes the focus: then its button lies elsewhere. */
  const moved = () => (anchor.checkVisibility() ? place(menu, anchor) : close(false));
  menu.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(/** @type {any} */ (document.activeElement));
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 };
    if (event.key in moves) focus(moves[event.key]);
    else if (event.key === "Escape" || event.key === "Tab") close(true);
    else if (event.key.length === 1 && /\S/.test(event.key)) {
      const letter = event.key.toLowerCase();
      const after = [...buttons.slice(at + 1), ...buttons].find((button) =>
        (button.textContent || "").trim().toLowerCase().startsWith(letter),
      );
      after?.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("pointerdown", outside, true);
  window.addEventListener("resize", moved);
  const endBack = closesByBack(() => close(true));
  current = { close, anchor };
  const chosen = buttons.find((button) => button.getAttribute("aria-checked") === "true");
  (chosen || buttons[0])?.focus({ preventScroll: true });
}
