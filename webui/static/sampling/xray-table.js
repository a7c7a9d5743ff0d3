// @ts-check
/**
 * The likeliest tokens before and after a stage: a table with two bars beside each token. Its rows stay and
 * only change, so that a slider can redraw them in each frame.
 * @import { Candidate, NextToken } from "../types.js"
 * @import { Step } from "./sampler-chain.js"
 */

import { h, icon, setText } from "../base/dom.js";
import { t, tn } from "../base/language.js";
import { marked, shareText, spoken } from "../text/token-text.js";

/** Tokens that are shown before somebody wants to see more. */
const FEW = 10;
const MANY = 200;

/** @param {NextToken} next */
export function createTable(next) {
  const caption = h("caption", { class: "visually-hidden" });
  const before = h("th", { scope: "col" });
  const after = h("th", { scope: "col" });
  const body = h("tbody", {});
  const table = h(
    "table",
    { class: "xray-table tabular" },
    caption,
    h("thead", {}, h("tr", {}, h("th", { scope: "col", text: t("Token") }), before, after)),
    body,
  );
  const all = Math.min(MANY, next.tokens.length);
  const more = h("button", { type: "button", class: "text-button", hidden: all <= FEW, on: { click: showMore } });
  const chosen = chosenOf(next);
  /** @type {Map<number, ReturnType<typeof tokenRow>>} */
  const made = new Map();
  const others = otherRow();
  let shown = Math.min(FEW, all);
  let again = () => {};

  function showMore() {
    shown = shown === all ? FEW : all;
    again();
  }

  /** @param {number} at */
  function rowOf(at) {
    const row = made.get(at) || tokenRow(next.tokens[at], at === chosen);
    made.set(at, row);
    return row;
  }

  return {
    element: h("div", { class: "xray-chart" }, table, more),

    /**
     * @param {Step} from @param {Step} to
     * @param {{name: string, whyGone: (at: number) => string}} words the stage, and why a token is gone
     */
    show(from, to, words) {
      again = () => this.show(from, to, words);
      const isOne = from === to;
      const there = [...next.tokens.keys()].filter((at) => from.p[at]);
      const order = there.sort((a, b) => from.p[b] - from.p[a] || a - b).slice(0, shown);
      const most = Math.max(...order.map((at) => Math.max(from.p[at], to.p[at])), 1e-9);
      setText(caption, isOne
        ? t("The likeliest tokens by the model alone")
        : t("The likeliest tokens before and after {name}", words));
      setText(before, isOne ? t("Share") : t("Before"));
      setText(after, t("After"));
      setText(more, shown === all ? t("Show fewer tokens") : t("Show {count} tokens", { count: all }));
      table.classList.toggle("is-one", isOne);
      const inOrder = order.map((at) => {
        const row = rowOf(at);
        row.show(from.p[at], to.p[at], most, to.p[at] ? "" : words.whyGone(at));
        return row.element;
      });
      const rest = (step) => 1 - order.reduce((sum, at) => sum + step.p[at], 0);
      const many = (step) => step.tokens - order.filter((at) => step.left[at]).length;
      others.show(many(from), rest(from), many(to), rest(to));
      inOrder.push(others.element);
      if (inOrder.length !== body.children.length || inOrder.some((one, at) => body.children[at] !== one))
        body.replaceChildren(...inOrder);
    },
  };
}

/**
 * The number of the one that came; of a reply's first token the white space before it is not kept.
 * @param {NextToken} next
 */
function chosenOf({ tokens, chosen, reply_length: written }) {
  if (!chosen) return -1;
  const at = tokens.findIndex((one) => one.text === chosen.text && one.bytes === chosen.bytes);
  return at < 0 && !written ? tokens.findIndex((one) => one.text.trimStart() === chosen.text) : at;
}

/** @param {Candidate} token @param {boolean} chosen */
function tokenRow(token, chosen) {
  const bars = [h("span", { class: "xray-before" }), h("span", { class: "xray-after" })];
  const cells = [h("td", {}), h("td", {})];
  const isNothing = !token.text && !token.bytes;
  const element = h(
    "tr",
    { class: chosen ? "is-chosen" : null },
    h(
      "th",
      { scope: "row" },
      h(
        "div",
        { class: "xray-cell" },
        h(
          "span",
          { class: "xray-token" },
          chosen && icon("check"),
          h("span", { class: "xray-piece", "aria-hidden": "true", dir: "auto" }, ...marked(token), isNothing && "—"),
          h("span", { class: "visually-hidden", text: isNothing ? t("number {id}", { id: String(token.id) }) : spoken(token) }),
          token.ends && h("span", { class: "help", text: ` ${t("ends it")}` }),
          chosen && h("span", { class: "visually-hidden", text: ` (${t("this one came")})` }),
        ),
        h("span", { class: "xray-bars", "aria-hidden": "true" }, ...bars),
      ),
    ),
    ...cells,
  );
  return {
    element,
    /** @param {number} before @param {number} after @param {number} most @param {string} gone */
    show(before, after, most, gone) {
      bars[0].style.inlineSize = `${(100 * before) / most}%`;
      bars[1].style.inlineSize = `${(100 * after) / most}%`;
      setText(cells[0], shareText(before));
      setText(cells[1], gone || shareText(after));
      element.classList.toggle("is-gone", Boolean(gone));
    },
  };
}

/** What is not shown one by one. */
function otherRow() {
  const name = h("span", {});
  const left = h("span", {});
  const cells = [h("td", {}), h("td", {})];
  const element = h("tr", { class: "xray-others" }, h("th", { scope: "row" }, name, left), ...cells);
  return {
    element,
    /** @param {number} before @param {number} had @param {number} after @param {number} have */
    show(before, had, after, have) {
      element.hidden = !before;
      setText(name, tn("{count} other token", "{count} other tokens", before));
      setText(cells[0], shareText(Math.max(0, had)));
      setText(cells[1], after ? shareText(Math.max(0, have)) : t("cut"));
      setText(left, after && after < before ? `, ${t("{count} left", { count: after })}` : "");
    },
  };
}
