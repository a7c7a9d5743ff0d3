// @ts-check
/**
 * Short notes above the composer, which go by themselves; while the pointer or the focus is on one, it
 * stays. The conversation makes room for them, so that they cover nothing that is being written. Beside a
 * modal dialog nothing can be clicked or heard: they stand in the last one that is open, above its buttons.
 */

import { byId, h, iconButton } from "../base/dom.js";
import { t, together } from "../base/language.js";

const STAYS_MS = 6000;
const UNDO_STAYS_MS = 10_000;
const MAX_NOTES = 3;
const GAP_PX = 8; // above and below

/** Keep the notes between the conversation and the composer. */
function makeRoom() {
  const place = byId("toasts");
  const bottom = byId("bottom");
  const height = place.childElementCount && !place.closest("dialog") ? place.offsetHeight + 2 * GAP_PX : 0;
  const { left, width } = bottom.getBoundingClientRect();
  place.style.left = `${left + width / 2}px`; // the panels beside it may be open or not
  place.style.bottom = `${bottom.offsetHeight - Number.parseFloat(bottom.style.paddingTop || "0") + GAP_PX}px`;
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

/** Have the notes, and what is said to screen readers, where somebody notices them. */
export function raiseNotes() {
  const form = [...document.querySelectorAll("dialog:modal > form")].at(-1);
  const place = byId("toasts");
  if (place.parentElement === (form || document.body)) return;
  const foot = form?.querySelector(":scope > footer") || null;
  for (const element of [place, byId("announcer")])
    if (form) form.insertBefore(element, foot);
    else document.body.append(element);
  makeRoom();
}

/**
 * Answers the note.
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
  if (!action) [...place.children].find((other) => other.textContent === note.textContent)?.remove();
  place.append(note);
  while (place.childElementCount > MAX_NOTES) place.firstElementChild?.remove();
  const stays = action || serious ? UNDO_STAYS_MS : STAYS_MS;
  const leave = () => {
    if (note.matches(":hover, :focus-within")) setTimeout(leave, 1000);
    else note.remove();
  };
  setTimeout(leave, stays);
  return note;
}

/** @param {any} error */
export function toastError(error) {
  if (error?.status === 401 || error?.status === 0) return;
  const text = together(error?.message || String(error), error?.hint);
  toast(text, { serious: true });
}
