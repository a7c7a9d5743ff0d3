// @ts-check
/**
 * The stages of sampling in their order, one below the other: what each does, and of the one that is open its
 * sliders and the likeliest tokens before and after it.
 * @import { NextToken, Parameter } from "../types.js"
 * @import { Step } from "./sampler-chain.js"
 */

import { h, setText } from "../base/dom.js";
import { count } from "../base/format.js";
import { t } from "../base/language.js";
import { parameterField } from "./field.js";
import { OF_LOGITS, activeStages, chain } from "./sampler-chain.js";
import { createTable } from "./xray-table.js";
import { STAGES, sentence } from "./xray-words.js";

const ALL = "all";

/**
 * @param {Map<string, Parameter>} specs
 * @param {ReturnType<typeof import("./sampling-values.js").samplingValues>} values
 * @param {() => string} bot the id of whose values they are
 */
export function createStages(specs, values, bot) {
  const list = h("ol", { class: "xray-stages" });
  const rows = new Map(Object.keys(STAGES).map((name) => [name, stageRow(name)]));
  const strikes = /** @type {HTMLInputElement} */ (
    h("input", { type: "checkbox", checked: true, on: { change: () => draw() } })
  );
  rows
    .get("xtc")
    ?.controls.prepend(h("label", { class: "choice" }, strikes, h("span", { text: t("Show what is left if it strikes") })));
  let open = ALL;
  /** The names of the rows, in their order. @type {string[]} */
  let shown = [];
  /** @type {NextToken | null} */
  let next = null;
  /** @type {ReturnType<typeof createTable> | null} */
  let table = null;

  /** @param {string} name */
  function stageRow(name) {
    const { name: title, parameters } = STAGES[name];
    const id = `xray-${name}`;
    const left = h("span", { class: "xray-left tabular" });
    const button = h(
      "button",
      { type: "button", class: "xray-stage", "aria-controls": id, on: { click: () => choose(name) } },
      h("span", { text: title }),
      left,
    );
    const said = h("p", { class: "help" });
    const fields = parameters
      .flatMap((one) => specs.get(one) || [])
      .map((spec) => ({ spec, ...parameterField(spec, values.fieldOptions(spec)) }));
    const controls = h("div", {}, ...fields.map((one) => one.element));
    const moves = [moveButton(name, -1), moveButton(name, 1)];
    const isMovable = specs.get("samplers")?.choices?.includes(name);
    const mover = h("div", { class: "xray-moves", hidden: !isMovable }, ...moves.map((one) => one.element));
    const detail = h("div", { class: "xray-detail", id }, controls, mover);
    const element = h("li", { data: { stage: name } }, h("h3", {}, button), said, detail);
    return { element, button, left, said, fields, controls, moves, detail };
  }

  /** The order of the samplers. @returns {string[]} */
  const samplers = () => values.of(/** @type {Parameter} */ (specs.get("samplers")), bot());

  /** A button that swaps a stage with its neighbour. @param {string} name @param {1 | -1} by */
  function moveButton(name, by) {
    const neighbour = () => samplers()[samplers().indexOf(name) + by];
    function swap() {
      const other = neighbour();
      const swapped = samplers().map((one) => (one === name ? other : one === other ? name : one));
      values.set(/** @type {Parameter} */ (specs.get("samplers")), swapped);
    }
    const element = h("button", {
      type: "button",
      class: "text-button",
      text: by < 0 ? t("Do it earlier") : t("Do it later"),
      on: { click: swap },
    });
    return {
      element,
      /** The stages of logits stay before the others. */
      show() {
        const other = neighbour();
        element.disabled = !other || OF_LOGITS.includes(other) !== OF_LOGITS.includes(name);
      },
    };
  }

  /** Open or close a stage; it stays where it is, or comes into sight. @param {string} name */
  function choose(name) {
    const { button, element } = /** @type {any} */ (rows.get(name));
    const at = button.getBoundingClientRect().top;
    open = open === name ? "" : name;
    draw();
    /** @type {HTMLElement} */ (list.parentElement).scrollTop += button.getBoundingClientRect().top - at;
    element.scrollIntoView({ block: "nearest" });
  }

  function draw() {
    if (!next || !table) return;
    const now = Object.fromEntries([...specs.values()].map((spec) => [spec.name, values.of(spec, bot())]));
    const steps = chain(next, now, strikes.checked);
    const active = activeStages(now);
    const found = new Map(steps.map((step, at) => [step.name, { step, before: steps[Math.max(0, at - 1)] }]));
    found.set(ALL, { step: { .../** @type {Step} */ (steps.at(-1)), name: ALL }, before: steps[0] });
    arrange(inOrder(now, found.has("bias")));
    for (const name of shown) {
      const row = /** @type {ReturnType<typeof stageRow>} */ (rows.get(name));
      const here = found.get(name);
      const without = active.includes(name) ? t("does not count") : t("off");
      setText(row.said, here ? sentence(here.step, here.before, { ...now, strikes: strikes.checked }) : "");
      setText(row.left, here ? t("{count} left", { count: here.step.tokens }) : without);
      row.element.classList.toggle("is-off", !here);
      row.button.setAttribute("aria-expanded", String(name === open));
      row.detail.hidden = name !== open;
      if (name !== open) continue;
      for (const { spec, show } of row.fields)
        show(values.of(spec, bot()), values.isSet(spec), values.noteOn(spec));
      for (const one of row.moves) one.show();
      table.element.hidden = !here;
      if (here) table.show(here.before, here.step, { name: STAGES[name].name, whyGone: whyGone(name, steps) });
      if (table.element.parentElement !== row.detail) row.detail.prepend(table.element);
    }
  }

  /** @param {string[]} names */
  function arrange(names) {
    if (names.join() === shown.join()) return;
    shown = names;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    list.replaceChildren(...names.map((name) => /** @type {any} */ (rows.get(name)).element));
    if (focused && list.contains(focused)) focused.focus();
  }

  return {
    element: list,
    draw,
    /** @param {NextToken | null} found */
    take(found) {
      next = found;
      table?.element.remove();
      table = found && createTable(found);
      list.hidden = !found;
      draw();
    },
  };
}

/**
 * Those of the order in force, with those that are off.
 * @param {Record<string, any>} now @param {boolean} biased
 */
function inOrder(now, biased) {
  const logits = now.samplers.filter((name) => OF_LOGITS.includes(name));
  const others = now.samplers.filter((name) => !OF_LOGITS.includes(name));
  const kept = now.mirostat ? others.filter((name) => name === "temperature") : others;
  return [ALL, "model", ...logits, ...(biased ? ["bias"] : []), ...kept, "mirostat"];
}

/**
 * What is said in place of a share: which stage cut it, where all are looked at.
 * @param {string} name @param {Step[]} steps @returns {(at: number) => string}
 */
function whyGone(name, steps) {
  if (name !== ALL) return () => t("cut");
  return (at) => STAGES[steps.find((step) => !step.left[at])?.name || "model"].name;
}
