// @ts-check
/**
 * The token lens: a reply token by token. Point at one, tap it or walk there with the arrow keys, and what
 * else could have come stands below it; choosing one of those writes another version of the reply from there.
 * @import { Message, Token, OtherToken } from "../types.js"
 * @import { Room } from "../session/room.js"
 * @import { Store } from "../session/store.js"
 */

import { h, icon, setText } from "../base/dom.js";
import { t, tn } from "../base/language.js";
import { recall, remember } from "../base/storage.js";
import { ApiError, get } from "../server/api.js";
import { closesByBack } from "../overlays/back.js";
import { openDialog } from "../overlays/dialogs.js";
import { place } from "../overlays/menu.js";
import { openXray } from "../sampling/xray.js";
import { marked, percent, spoken } from "../text/token-text.js";

/** Tokens that are put on the page at once. */
const PART = 2000;
const UNDERLINED = "lens-underlines";
/** In nats; a token whose entropy is beyond the last of these has the thickest line. */
const LEVELS = [0.3, 1, 2, 3.5];
const HELP =
  t("Choose a token to see what else could have stood there; choose one of those, and another version goes on from it.");

/**
 * @param {Store} store @param {Room} room @param {Message} message
 * @param {string} name whose reply it is
 */
export async function openLens(store, room, message, name) {
  const abort = new AbortController();
  const status = h("p", { class: "help", role: "status", text: t("Looking at the reply…") });
  const text = h("div", { class: "lens-text", role: "toolbar", "aria-label": t("Tokens"), dir: "auto", hidden: true });
  const underline = h("button", {
    type: "button",
    class: "button",
    text: t("Underline what was uncertain"),
    hidden: true,
    on: { click: () => showUnderlines(underline.getAttribute("aria-pressed") !== "true") },
  });
  const more = h("button", { type: "button", class: "button", hidden: true, on: { click: () => addPart() } });
  const dialog = openDialog(t("Tokens of {name}'s reply", { name }), [status, text, more], {
    wide: true,
    actions: [underline],
    onClose() {
      abort.abort();
      popover.hide();
    },
  });
  const popover = createPopover(text, choose, (index) => openXray(store, room, { message, index, name }));

  /** @param {boolean} shows */
  function showUnderlines(shows) {
    remember(UNDERLINED, shows ? "yes" : "");
    underline.setAttribute("aria-pressed", String(shows));
    text.classList.toggle("underlined", shows);
    setText(status, shows ? t("The thicker the line, the more could have come there.") : HELP);
  }

  /** @param {number} index @param {OtherToken} other */
  function choose(index, other) {
    room.reply("fork", { message: message.id, token: index, choice: other.id });
    setTimeout(() => dialog.close()); // the page is laid out anew while the server is at it already
  }

  /** @type {Token[]} */
  let tokens = [];
  let shown = 0;

  function addPart() {
    const end = Math.min(tokens.length, shown + PART);
    text.append(...tokens.slice(shown, end).map((token, at) => tokenSpan(token, shown + at)));
    shown = end;
    more.hidden = shown === tokens.length;
    more.textContent = tn("Show one more token", "Show {count} more tokens", Math.min(PART, tokens.length - shown));
  }

  try {
    const id = store.state.session?.id;
    ({ tokens } = await get(`/api/sessions/${id}/messages/${message.id}/tokens`, abort.signal));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    status.textContent = error.message;
    status.classList.add("wrong");
    return;
  }
  addPart();
  text.hidden = false;
  underline.hidden = !tokens.some((token) => token.entropy !== null);
  showUnderlines(!underline.hidden && recall(UNDERLINED) === "yes");
  walkWithKeys(text, popover, tokens);
  const first = /** @type {HTMLElement} */ (text.firstElementChild);
  first.tabIndex = 0;
  first.focus({ preventScroll: true });
}

/** @param {Token} token @param {number} index */
function tokenSpan(token, index) {
  const level = LEVELS.filter((least) => (token.entropy ?? 0) >= least).length;
  const lines = token.text.includes("\n") && !token.text.trim();
  return h(
    "span",
    {
      class: `lens-token level-${level}`,
      role: "button",
      tabindex: "-1",
      "aria-haspopup": "true",
      "aria-label": `${spoken(token.text ? { ...token, bytes: undefined } : token)}, ${percent(token.logprob)}`,
      data: { index },
    },
    lines && h("span", { class: "lens-mark", text: "↵" }),
    token.text || h("span", { class: "lens-mark", text: "▯" }),
  );
}

/**
 * What stands below a token: it and the others, the likeliest first.
 * @param {HTMLElement} text @param {(index: number, other: OtherToken) => void} choose
 * @param {(index: number) => void} xray
 */
function createPopover(text, choose, xray) {
  const element = h("div", { class: "menu lens-others", role: "group", popover: "manual" });
  text.after(element);
  /** @type {HTMLElement | null} */
  let anchor = null;
  let endBack = () => {};

  /** @param {Token | OtherToken} token @param {Record<string, any>} props @param {string} tag */
  function row(token, tag, props, quiet = "") {
    const bar = h("span", { class: "lens-bar", "aria-hidden": "true" }, h("span", { class: "lens-fill" }));
    /** @type {HTMLElement} */ (bar.firstElementChild).style.inlineSize = `${Math.exp(token.logprob) * 100}%`;
    return h(
      tag,
      props,
      h("span", { class: "lens-piece" }, ...marked(token), quiet && h("span", { class: "help", text: quiet })),
      bar,
      h("span", { class: "lens-share tabular", text: percent(token.logprob) }),
    );
  }

  /** @param {Token} token @param {number} index @param {OtherToken} other */
  const otherRow = (token, index, other) =>
    other.choosable
      ? row(other, "button", {
          type: "button",
          class: "menu-item",
          "aria-label": t("{token}, {share}: go on from here", { token: spoken(other), share: percent(other.logprob) }),
          on: { click: () => choose(index, other) },
        })
      : row(other, "div", { class: "menu-item" }, index ? t("ends or shapes a reply") : t("begins no reply"));

  return {
    element,
    get anchor() {
      return anchor;
    },
    /** @param {HTMLElement} span @param {Token} token @param {number} index */
    show(span, token, index) {
      if (anchor === span) return;
      this.hide();
      anchor = span;
      span.setAttribute("aria-expanded", "true");
      const before = token.others.filter((other) => other.logprob > token.logprob);
      const own = row(token, "div", { class: "menu-item is-own" }, "");
      own.prepend(icon("check"));
      element.setAttribute("aria-label", t("In place of {token}", { token: spoken(token) }));
      element.replaceChildren(
        ...before.map((other) => otherRow(token, index, other)),
        own,
        ...token.others.filter((other) => !before.includes(other)).map((other) => otherRow(token, index, other)),
        token.others.length ? "" : h("p", { class: "menu-heading", text: t("Nothing else was kept here.") }),
        h("button", {
          type: "button",
          class: "text-button xray-open",
          text: t("See what the samplers do here"),
          on: {
            click: () => {
              span.focus(); // where the focus comes back to
              this.hide();
              xray(index);
            },
          },
        }),
      );
      element.showPopover();
      place(element, span, true);
      endBack = closesByBack(() => this.hide());
      window.addEventListener("resize", this.hide, { once: true });
    },
    hide() {
      if (!anchor) return;
      endBack();
      anchor.removeAttribute("aria-expanded");
      anchor = null;
      element.hidePopover();
    },
  };
}

/**
 * The arrow keys, Home and End from token to token, Down into what else could have come, Esc back.
 * @param {HTMLElement} text @param {ReturnType<typeof createPopover>} popover @param {Token[]} tokens
 */
function walkWithKeys(text, popover, tokens) {
  /** @param {any} target @returns {HTMLElement | null} */
  const spanOf = (target) => (target instanceof Element ? target.closest(".lens-token") : null);
  /** @param {HTMLElement} span */
  const show = (span) => popover.show(span, tokens[Number(span.dataset.index)], Number(span.dataset.index));
  const buttons = () => /** @type {HTMLElement[]} */ ([...popover.element.querySelectorAll("button")]);
  let pointed = 0;

  text.addEventListener("focusin", (event) => {
    const span = spanOf(event.target);
    if (!span) return;
    text.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    span.tabIndex = 0;
    if (span.matches(":focus-visible") && text.dataset.walked) show(span);
  });
  text.addEventListener("pointerover", (event) => {
    const span = spanOf(event.target);
    if (event.pointerType !== "mouse" || !span) return;
    clearTimeout(pointed);
    pointed = setTimeout(() => show(span), 60);
  });
  text.addEventListener("pointerout", () => clearTimeout(pointed));
  text.addEventListener("click", (event) => {
    const span = spanOf(event.target);
    if (span) show(span);
    else popover.hide();
  });
  text.addEventListener("keydown", (event) => {
    const span = spanOf(event.target);
    if (!span || event.ctrlKey || event.metaKey || event.altKey) return;
    const forward = getComputedStyle(text).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    const back = forward === "ArrowRight" ? "ArrowLeft" : "ArrowRight";
    const next = {
      [forward]: span.nextElementSibling,
      [back]: span.previousElementSibling,
      Home: text.firstElementChild,
      End: text.lastElementChild,
    };
    text.dataset.walked = "yes";
    if (event.key in next) /** @type {HTMLElement | null} */ (next[event.key])?.focus();
    else if (event.key === "Enter" || event.key === " " || event.key === "ArrowDown") {
      show(span);
      buttons()[0]?.focus();
    } else if (event.key === "Escape" && popover.anchor) popover.hide();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  popover.element.addEventListener("keydown", (event) => {
    const all = buttons();
    const at = all.indexOf(/** @type {any} */ (document.activeElement));
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 };
    if (event.key in moves && moves[event.key] >= 0) all[moves[event.key] % all.length]?.focus();
    else if (event.key in moves || event.key === "Escape" || event.key === "Tab") {
      const { anchor } = popover;
      anchor?.focus();
      if (event.key === "Escape") popover.hide();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  text.closest("dialog")?.addEventListener("pointerdown", (event) => {
    if (!spanOf(event.target) && !popover.element.contains(/** @type {Node} */ (event.target))) popover.hide();
  });
  text.closest(".dialog-body")?.addEventListener("scroll", () => popover.hide());
}
