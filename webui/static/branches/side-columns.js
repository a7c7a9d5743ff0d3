// @ts-check
/**
 * The columns of a comparison while they are written and after that: texts beside each other, who wrote them
 * once that may be known, and a button each to vote.
 * @import { Comparison, Live, Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { h, setText } from "../base/dom.js";
import { count, numbers, speed } from "../base/format.js";
import { t } from "../base/language.js";
import { botOf } from "../session/store.js";
import { messageOf } from "../session/tree.js";
import { MarkdownView } from "../text/markdown.js";

/**
 * Who wrote a column, and how: what tells it from others.
 * @param {Store} store @param {Comparison["columns"][0]} column
 */
export function columnName(store, column) {
  const { session, settings } = store.state;
  const message = session && messageOf(session, column.message);
  const preset = column.preset && settings?.presets.find((one) => one.id === column.preset);
  return [
    botOf(store.state, column.bot)?.name || message?.name || t("a bot that is gone"),
    column.preset && (preset ? preset.name : t("a preset that is gone")),
    message?.model || column.engine?.model,
  ]
    .filter(Boolean)
    .join(" · ");
}

/**
 * @param {Store} store @param {Comparison} comparison
 * @param {(winner: string) => void} choose
 * @param {(live: Live) => void} stop one column, while the others go on
 */
export function createColumns(store, comparison, choose, stop) {
  const views = comparison.columns.map((column, at) => columnView(store, column, at, choose, stop));
  const row = h(
    "div",
    { class: "compare-columns", role: "group", "aria-label": t("Columns"), tabindex: "0" },
    ...views.map((view) => view.element),
  );
  return {
    element: row,

    /**
     * As they stand now; answers whether all are done. @param {Comparison} now
     */
    draw(now) {
      const isDone = views.map((view) => view.isDone()).every(Boolean);
      const isOpen = !now.blind || now.winner !== null;
      for (const view of views) view.draw({ isOpen, canVote: isDone && !now.winner, winner: now.winner });
      return isDone;
    },

    /** @param {number} at */
    vote: (at) => views[at]?.vote(),
    focus: () => views[0].button.focus(),
  };
}

/**
 * @param {Store} store @param {Comparison["columns"][0]} column @param {number} at
 * @param {(winner: string) => void} choose @param {(live: Live) => void} stop
 */
function columnView(store, column, at, choose, stop) {
  const number = count(at + 1);
  const title = h("h3", { class: "compare-name", text: t("Column {number}", { number }) });
  const button = h("button", {
    type: "button",
    class: "button compare-vote",
    text: t("Choose {number}", { number }),
    hidden: true,
    on: { click: () => vote() },
  });
  const stopButton = h("button", {
    type: "button",
    class: "button small",
    text: t("Stop {number}", { number }),
    on: {
      click() {
        const running = live();
        element.focus({ preventScroll: true }); // the button goes
        if (running) stop(running);
      },
    },
  });
  const body = h("div", { class: "md", dir: "auto" });
  const note = h("p", { class: "help tabular" });
  const wrong = h("p", { class: "help wrong", hidden: true });
  const text = new MarkdownView(body);
  const element = h(
    "section",
    { class: "compare-column", tabindex: "-1", "aria-label": t("Column {number}", { number }) },
    h("header", { class: "compare-head" }, title, stopButton, button),
    body,
    wrong,
    note,
  );
  const live = () => store.state.live.get(column.message) || null;
  const message = () => (store.state.session ? messageOf(store.state.session, column.message) : null);

  function vote() {
    if (!button.hidden) choose(column.message);
  }

  return {
    element,
    button,
    vote,
    isDone: () => !live() && (message() !== null || !store.state.session?.replies?.length),

    /** @param {{isOpen: boolean, canVote: boolean, winner: string | null}} now */
    draw({ isOpen, canVote, winner }) {
      const running = live();
      const kept = message();
      if (running) text.grow(running.text);
      else if (kept) text.show(kept.text);
      button.hidden = !canVote || !kept;
      stopButton.hidden = !running || running.stopping;
      if (winner === column.message && !element.classList.contains("is-winner"))
        element.scrollIntoView({ block: "nearest", inline: "center" });
      element.classList.toggle("is-winner", winner === column.message);
      setText(title, isOpen ? columnName(store, column) : t("Column {number}", { number }));
      setText(note, running ? liveText(running, isOpen) : keptText(kept, isOpen, winner === column.message));
      const problem = (!running && kept?.error) || "";
      setText(wrong, problem);
      wrong.hidden = !problem;
    },
  };
}

/** @param {Live} live @param {boolean} isOpen whether numbers may tell who it is */
function liveText(live, isOpen) {
  if (live.stopping) return t("Stopping…");
  if (live.text && isOpen && live.stats?.tokens_per_second) return speed(live.stats.tokens_per_second);
  if (live.text) return t("Writing…");
  if (live.think) return t("Thinking…");
  return live.progress && live.progress.done < live.progress.total ? t("Reading the prompt…") : t("Waiting…");
}

/** @param {Message | null} message @param {boolean} isOpen @param {boolean} hasWon */
function keptText(message, isOpen, hasWon) {
  if (!message) return t("This reply is not there any more.");
  const seed = isOpen && message.seed !== undefined && t("seed {number}", { number: String(message.seed) });
  return [hasWon && t("Chosen"), isOpen && numbers(message), seed].filter(Boolean).join(" · ");
}
