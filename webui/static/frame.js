// @ts-check
/**
 * The two side panels: part of the page where there is room, drawers over it where there is not. A drawer
 * takes the focus, makes the rest inert, and closes with Esc or a tap beside it. At the first visit the
 * settings are closed.
 */

import { byId, iconButton } from "./base/dom.js";
import { t } from "./base/language.js";
import { recall, remember } from "./base/storage.js";
import { closesByBack } from "./overlays/back.js";

const DRAWER_BELOW = { left: "(max-width: 820px)", right: "(max-width: 1120px)" };

/** So far a finger pushes a drawer to close it. */
const PUSH_PX = 56;

/** @typedef {"left" | "right"} Side */

/**
 * Let a finger push a drawer out of the page; it follows the finger on the way.
 * @param {HTMLElement} panel @param {Side} side @param {() => void} close
 */
function closeByPush(panel, side, close) {
  /** @type {Touch | null} */
  let start = null;
  let pushed = 0;
  const show = () => (panel.style.translate = pushed ? `${pushed}px` : "");
  panel.addEventListener(
    "touchstart",
    ({ touches, target }) => {
      const movesItself = /** @type {Element} */ (target).closest("input, textarea, .menu, .tabs");
      start = touches.length === 1 && panel.matches(".is-drawer") && !movesItself ? touches[0] : null;
    },
    { passive: true },
  );
  panel.addEventListener(
    "touchmove",
    ({ touches }) => {
      if (!start) return;
      const [x, y] = [touches[0].clientX - start.clientX, touches[0].clientY - start.clientY];
      const out = (side === "left") === (document.documentElement.dir !== "rtl") ? -1 : 1;
      if (!pushed && Math.abs(y) > Math.abs(x)) start = null; // the list is scrolled
      else pushed = out * Math.max(0, out * x);
      show();
    },
    { passive: true },
  );
  for (const end of ["touchend", "touchcancel"])
    panel.addEventListener(end, () => {
      const isFar = end === "touchend" && Math.abs(pushed) > PUSH_PX;
      start = null;
      pushed = 0;
      show();
      if (isFar) close();
    });
}

export function createFrame() {
  const backdrop = byId("backdrop");
  const panels = { left: byId("left"), right: byId("right") };
  const openers = { left: byId("open-left"), right: byId("open-right") };
  const queries = { left: matchMedia(DRAWER_BELOW.left), right: matchMedia(DRAWER_BELOW.right) };
  const docked = { left: recall("panel.left") !== "closed", right: recall("panel.right") === "open" };
  /** @type {Side | null} */
  let drawer = null;
  let endBack = () => {};

  /** @param {Side} side */
  const isOpen = (side) => (queries[side].matches ? drawer === side : docked[side]);

  function apply() {
    for (const side of /** @type {Side[]} */ (["left", "right"])) {
      const open = isOpen(side);
      panels[side].classList.toggle("is-drawer", queries[side].matches);
      panels[side].classList.toggle("is-open", open);
      panels[side].inert = !open;
      delete document.documentElement.dataset[side]; // what early.js knew is known here now
      openers[side].hidden = !queries[side].matches && open;
      openers[side].setAttribute("aria-expanded", String(open));
    }
    const covered = drawer !== null;
    endBack();
    if (covered) endBack = closesByBack(() => drawer && setOpen(drawer, false));
    backdrop.hidden = !covered;
    byId("main").inert = covered;
    for (const side of /** @type {Side[]} */ (["left", "right"]))
      if (covered && drawer !== side) panels[side].inert = true;
  }

  /** @param {Side} side @param {boolean} open @param {boolean} [focus] */
  function setOpen(side, open, focus = true) {
    if (queries[side].matches) {
      drawer = open ? side : null;
    } else {
      docked[side] = open;
      remember(`panel.${side}`, open ? "open" : "closed");
    }
    apply();
    if (!focus) return;
    const target = open ? panels[side].querySelector("button, input, [tabindex='0']") : openers[side];
    /** @type {HTMLElement | null} */ (target)?.focus({ preventScroll: true });
  }

  for (const side of /** @type {Side[]} */ (["left", "right"])) {
    openers[side].addEventListener("click", () => setOpen(side, true));
    closeByPush(panels[side], side, () => drawer && setOpen(drawer, false));
    queries[side].addEventListener("change", () => {
      drawer = null;
      apply();
    });
  }
  backdrop.addEventListener("click", () => drawer && setOpen(drawer, false));
  apply();

  return {
    isOpen,
    setOpen,
    /** @param {Side} side */
    toggle: (side) => setOpen(side, !isOpen(side)),
    /** Close the drawer, if one is open. */
    closeDrawer(focus = true) {
      if (!drawer) return false;
      setOpen(drawer, false, focus);
      return true;
    },
    /** @param {Side} side */
    closeButton: (side) =>
      iconButton(
        `panel-${side}`,
        side === "left" ? t("Hide sessions") : t("Hide settings"),
        () => setOpen(side, false),
      ),
  };
}

/** @typedef {ReturnType<typeof createFrame>} Frame */
