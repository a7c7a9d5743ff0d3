// @ts-check
/**
 * Short notes above the composer, which go by themselves; while the pointer or the focus is on one, it
 * stays. The conversation makes room for them, so that they cover nothing that is being written.
 */

import { byId, h, iconButton } from "../base/dom.js";
import { t } from "../base/language.js";

const STAYS_MS = 6000;
const UNDO_STAYS_MS = 10_000;
const MAX_NOTES = 3;

/** Keep the notes between the conversation and the composer. */
function makeRoom() {
  const place = byId("toasts");
  const bottom = byId("bottom");
  const height = place.childElementCount ? place.offsetHeight + 10 : 0;
  place.style.bottom = `${bottom.offsetHeight - Number.parseFloat(bottom.style.paddingTop || "0")}px`;
  bottom.style.paddingTop = `${height}px`;
}

let follows = false;

/** The composer grows and shrinks, and notes come and go. */
function follow() {
  if (follows) return;
  follows = true;
  const observer = new ResizeObserver(makeRoom);
  observer.observe(byId("toasts"));
  observer.observe(byId("composer"));
}

/**
 * @param {string} text
 * @param {{action?: string, onAction?: () => void, serious?: boolean}} [options]
 */
export function toast(text, { action, onAction, serious = false } = {}) {
  const place = byId("toasts");
  follow();
  const note = h(
    "div",
    { class: serious ? "toast serious" : "toast" },
    h("span", { text }),
    action &&
      h("button", {
        type: "button",
        class: "button ghost small",
        text: action,
        on: {
          click: () => {
            note.remove();
            onAction?.();
          },
        },
      }),
    iconButton("x", t("Dismiss"), () => note.remove()),
  );
  place.append(note);
  while (place.childElementCount > MAX_NOTES) place.firstElementChild?.remove();
  const stays = action || serious ? UNDO_STAYS_MS : STAYS_MS;
  const leave = () => {
    if (note.matches(":hover, :focus-within")) setTimeout(leave, 1000);
    else note.remove();
  };
  setTimeout(leave, stays);
}

/** @param {any} error */
export function toastError(error) {
  if (error?.status === 401 || error?.status === 0) return;
  const text = [error?.message || String(error), error?.hint].filter(Boolean).join(" ");
  toast(text, { serious: true });
}
