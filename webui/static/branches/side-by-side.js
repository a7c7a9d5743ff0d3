// @ts-check
/**
 * Side by side: up to four columns answer one message at once, and a vote says which of them goes on. The
 * replies are ordinary versions of the session, so that nothing is lost when this window closes.
 * @import { Comparison } from "../types.js"
 * @import { Room } from "../session/room.js"
 * @import { Store } from "../session/store.js"
 */

import { announce } from "../base/announce.js";
import { byId, h, setText } from "../base/dom.js";
import { t, together } from "../base/language.js";
import { isComposing, isTouchOnly } from "../base/input.js";
import { dialogButton, openDialog } from "../overlays/dialogs.js";
import { columnName, createColumns } from "./side-columns.js";
import { createSetup } from "./side-setup.js";

/**
 * @param {Store} store @param {Room} room
 * @param {string} [id] of the comparison to show; else the last one, if nobody has voted and nothing followed
 */
export async function openCompare(store, room, id) {
  if (!(await room.whole())) return;
  const status = h("p", { class: "help", role: "status" });
  const wrong = h("p", { class: "help wrong", role: "alert", hidden: true });
  const place = h("div", { class: "compare" });
  const hide = (button) => Object.assign(button, { hidden: true });
  const ask = hide(dialogButton(t("Ask them"), "primary", null));
  const stop = hide(dialogButton(t("Stop all"), "", () => room.stop()));
  const again = hide(dialogButton(t("Compare once more"), "", () => setUp()));
  const done = hide(dialogButton(t("Go on"), "primary", () => dialog.close()));
  /** What the button of the form does. */
  let submit = () => {};
  let frame = 0;
  const dialog = openDialog(t("Side by side"), [status, place], {
    wide: true,
    actions: [wrong, again, stop, ask, done],
    onSubmit: () => submit(),
    onClose: () => cancelAnimationFrame(frame),
  });
  dialog.classList.add("broad");

  /** @param {string} text */
  function complain(text) {
    setText(wrong, text);
    wrong.hidden = !text;
  }

  /** @param {Node[]} content @param {HTMLElement[]} buttons */
  function show(content, buttons) {
    cancelAnimationFrame(frame);
    complain("");
    place.replaceChildren(...content);
    for (const button of [ask, stop, again, done]) button.hidden = !buttons.includes(button);
  }

  function setUp() {
    const composer = /** @type {HTMLTextAreaElement} */ (byId("text"));
    const setup = createSetup(store, store.state.session?.comparisons?.at(-1) || null);
    const text = /** @type {HTMLTextAreaElement} */ (
      h("textarea", { class: "text-input", rows: "3", "data-autofocus": true, dir: "auto" })
    );
    composer.form?.dispatchEvent(new Event("unfold")); // attached files go into what is typed
    text.value = composer.value;
    const blind = h("input", { type: "checkbox", checked: true });
    /** What is typed here is the draft of the chat, so that it is kept as that is. @param {string} value */
    const draft = (value) => {
      composer.value = value;
      composer.dispatchEvent(new Event("input"));
    };
    text.addEventListener("input", () => draft(text.value));
    text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || isComposing(event) || event.shiftKey) return;
      if (isTouchOnly() && !event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      submit();
    });
    setText(status, t("All columns answer the same message, each on its own, from what was said before."));
    show(
      [
        setup.element,
        setup.add,
        h("label", { class: "stacked" }, h("span", { class: "label", text: t("Message") }), text),
        h("label", { class: "compare-blind" }, blind, h("span", { text: t("Hide who is who until the vote") })),
        ...tally(store),
      ],
      [ask],
    );
    if (!isTouchOnly()) text.focus(); // its keyboard would hide the columns
    submit = async () => {
      const said = text.value.trim();
      if (!said) {
        complain(t("Write what they are to answer."));
        text.focus();
        return;
      }
      ask.disabled = true;
      const asked = { text: said, blind: blind.checked, columns: setup.wanted() };
      const problem = await room.perform("comparisons", asked);
      ask.disabled = false;
      if (problem) {
        complain(together(problem.message, problem.hint));
        return;
      }
      draft("");
      const made = store.state.session?.comparisons?.at(-1);
      if (made && dialog.isConnected) watch(made);
    };
  }

  /** @param {Comparison} comparison */
  function watch(comparison) {
    submit = () => {};
    const now = () => store.state.session?.comparisons?.find((one) => one.id === comparison.id) || comparison;
    const columns = createColumns(store, comparison, vote, room.stopOne);
    let wasDone = false;
    show([columns.element, h("div", { class: "compare-tally" })], []);
    setText(status, t("They write…"));

    function draw() {
      if (!dialog.isConnected) return;
      const isDone = columns.draw(now());
      if (isDone && document.activeElement === stop) columns.element.focus(); // where the keys are heard
      stop.hidden = isDone;
      if (isDone && !wasDone) finish();
      wasDone = isDone;
      if (!isDone) frame = requestAnimationFrame(draw);
    }

    function finish() {
      const voted = now().winner !== null;
      again.hidden = done.hidden = !voted;
      const choose = isTouchOnly()
        ? t("Choose the one that is to go on.")
        : t("Choose the one that is to go on, or press its number.");
      setText(status, voted ? t("The chosen one goes on; the others stay as its versions.") : choose);
      if (voted) place.querySelector(".compare-tally")?.replaceChildren(...tally(store));
      else announce(choose);
    }

    /** @param {string} winner */
    async function vote(winner) {
      const problem = await room.perform(`comparisons/${comparison.id}/vote`, { winner });
      if (problem) {
        complain(problem.message);
        return;
      }
      wasDone = false;
      draw();
      done.focus();
      const at = comparison.columns.find((column) => column.message === winner);
      if (at) announce(t("Chosen: {name}", { name: columnName(store, at) }));
    }

    dialog.addEventListener("keydown", (event) => {
      if (!place.contains(columns.element) || event.ctrlKey || event.metaKey || event.altKey) return;
      const at = ["1", "2", "3", "4"].indexOf(event.key);
      if (at >= 0) columns.vote(at);
    });
    draw();
    columns.element.focus();
  }

  const { session, bots } = store.state;
  const all = session?.comparisons || [];
  const last = all.at(-1);
  const isOpen =
    last &&
    !last.winner &&
    last.columns.some((column) => store.state.live.has(column.message) || session?.leaf === column.message);
  const wanted = id ? all.find((one) => one.id === id) : isOpen ? last : null;
  if (wanted) watch(wanted);
  else if (session && bots.length) setUp();
  else setText(status, t("There is no bot to ask. Make one first."));
}

/** How often each kind of column has won in this session. @param {Store} store */
function tally(store) {
  /** @type {Map<string, {won: number, of: number}>} */
  const found = new Map();
  const voted = (store.state.session?.comparisons || []).filter((one) => one.winner);
  for (const { columns, winner } of voted)
    for (const column of columns) {
      const name = columnName(store, column);
      const entry = found.get(name) || { won: 0, of: 0 };
      entry.of += 1;
      entry.won += Number(column.message === winner);
      found.set(name, entry);
    }
  if (!found.size) return [];
  const rows = [...found].sort(([, a], [, b]) => b.won / b.of - a.won / a.of || b.of - a.of);
  return [
    h("h3", { class: "group-label", text: t("Votes in this session") }),
    h(
      "dl",
      { class: "facts" },
      ...rows.map(([name, { won, of }]) =>
        h(
          "div",
          {},
          h("dt", { text: name }),
          h("dd", { class: "tabular", text: t("{number} of {all}", { number: won, all: of }) }),
        ),
      ),
    ),
  ];
}
