// @ts-check
/**
 * Names of bots while a message is typed: behind an @ the bots of the room are offered, above the box. The
 * one that is chosen stands in the message by its name, and so is the one that answers.
 * @import { Bot } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { announce } from "../base/announce.js";
import { h, monogram } from "../base/dom.js";
import { isComposing } from "../base/input.js";
import { t, tn } from "../base/language.js";
import { botsInRoom, pictureOf } from "../session/store.js";

/** An @ that no word stands before, and what was typed behind it. */
const BEGUN = /(?<![\p{L}\p{N}_])@([^\n@]{0,60})$/u;

/** @param {string} text */
const folded = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

/**
 * The place of the @ before the caret, and what follows it; null if there is none.
 * @param {string} text up to the caret
 */
export function begun(text) {
  const found = BEGUN.exec(text);
  return found && { at: found.index, typed: found[1] };
}

/**
 * Those whose name, or a word of it, begins so.
 * @param {Bot[]} bots @param {string} typed
 */
export function matching(bots, typed) {
  const wanted = folded(typed);
  return bots.filter(({ name }) => {
    const words = folded(name);
    return words.startsWith(wanted) || words.split(/\s+/).some((word) => wanted && word.startsWith(wanted));
  });
}

/**
 * @param {Store} store
 * @param {HTMLTextAreaElement} text
 */
export function createMentions(store, text) {
  const list = h("div", { class: "mentions", role: "listbox", id: "mentions", "aria-label": t("Bots"), hidden: true });
  text.before(list);
  let /** @type {Bot[]} */ shown = [];
  let at = 0;

  function close() {
    if (list.hidden) return;
    list.hidden = true;
    for (const name of ["aria-controls", "aria-activedescendant", "aria-autocomplete"]) text.removeAttribute(name);
  }

  /** @param {number} index */
  function mark(index) {
    at = (index + shown.length) % shown.length;
    [...list.children].forEach((option, number) => option.setAttribute("aria-selected", String(number === at)));
    text.setAttribute("aria-activedescendant", `mention-${at}`);
    list.children[at].scrollIntoView({ block: "nearest" });
  }

  /** @param {Bot} bot */
  function choose(bot) {
    const caret = text.selectionStart;
    const place = begun(text.value.slice(0, caret));
    close();
    if (!place) return;
    const rest = text.value.slice(caret);
    text.setRangeText(bot.name + (/^[\s,.:;!?]/.test(rest) ? "" : " "), place.at, caret, "end");
    text.dispatchEvent(new Event("input", { bubbles: true }));
    text.focus();
  }

  function update() {
    const place = document.activeElement === text && begun(text.value.slice(0, text.selectionStart));
    const muted = new Set(store.state.session?.bots.filter((entry) => entry.muted).map((entry) => entry.id));
    const found = place ? matching(botsInRoom(store.state).filter(({ id }) => !muted.has(id)), place.typed) : [];
    if (!found.length) {
      shown = [];
      close();
      return;
    }
    const isNew = list.hidden || found.map(({ id }) => id).join() !== shown.map(({ id }) => id).join();
    if (!isNew) return;
    shown = found;
    list.replaceChildren(
      ...found.map((bot, number) =>
        h(
          "div",
          {
            role: "option",
            id: `mention-${number}`,
            class: "mention",
            on: {
              pointerdown: (event) => event.preventDefault(), // the box keeps the focus
              click: () => choose(bot),
            },
          },
          monogram(bot.name, bot.color, "", pictureOf(bot)),
          h("span", { text: bot.name }),
        ),
      ),
    );
    list.hidden = false;
    text.setAttribute("aria-controls", "mentions");
    text.setAttribute("aria-autocomplete", "list");
    mark(0);
    announce(tn("One bot by that name; Enter takes it.", "{count} bots; arrow keys choose, Enter takes one.", found.length));
  }

  text.addEventListener(
    "keydown",
    (event) => {
      if (list.hidden || isComposing(event)) return;
      const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const takes = (event.key === "Enter" || event.key === "Tab") && !event.shiftKey && !event.ctrlKey && !event.metaKey;
      if (by) mark(at + by);
      else if (takes) choose(shown[at]);
      else if (event.key === "Escape") close();
      else return;
      event.preventDefault();
      event.stopImmediatePropagation();
    },
    true,
  );
  text.addEventListener("input", update);
  text.addEventListener("click", update);
  text.addEventListener("keyup", (event) => event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End" ? update() : undefined);
  text.addEventListener("blur", close);
  return { update };
}
