// @ts-check
/**
 * The form of a comparison: who answers in each column, by which preset, model and seed.
 * @import { Comparison, Model } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { h, icon, iconButton } from "../base/dom.js";
import { count } from "../base/format.js";
import { t } from "../base/language.js";
import { get } from "../server/api.js";

const LEAST = 2;
const MOST = 4;
/** Of a model's choice: the bot's own, and the one that is loaded. */
const OWN = "own";
const LOADED = "";

/**
 * @typedef {{bot: string, preset?: string, seed?: number,
 *   engine?: {id: string, model: string} | null}} Wanted
 */

/**
 * @param {Store} store @param {Comparison | null} before what was compared last in this session
 */
export function createSetup(store, before) {
  const { session, bots, settings } = store.state;
  const inRoom = new Set((session?.bots || []).map((entry) => entry.id));
  const ordered = [...bots].sort((a, b) => Number(inRoom.has(b.id)) - Number(inRoom.has(a.id)));
  const place = h("div", { class: "compare-setup" });
  const add = h("button", {
    type: "button",
    class: "button ghost",
    text: t("Add a column"),
    on: {
      click: () => {
        const made = addColumn();
        made.element.querySelector("select")?.focus();
      },
    },
  });
  /** @type {ReturnType<typeof column>[]} */
  let columns = [];
  /** @type {{value: string, label: string}[]} */
  const models = [
    { value: OWN, label: t("The bot's own") },
    { value: LOADED, label: t("The one that is loaded") },
  ];

  /** Another bot of the room in each, as long as there are. @param {Wanted} [wanted] */
  function addColumn(wanted = { bot: ordered[columns.length < inRoom.size ? columns.length : 0]?.id || "" }) {
    const made = column(wanted);
    columns.push(made);
    place.append(made.element);
    number();
    return made;
  }

  function number() {
    columns.forEach((each, at) => each.setNumber(at + 1, columns.length > LEAST));
    add.hidden = columns.length >= MOST;
  }

  /** @param {Wanted} wanted */
  function column(wanted) {
    const bot = select(
      t("Bot"),
      ordered.map(({ id, name }) => ({ value: id, label: name })),
      wanted.bot,
    );
    const presets = (settings?.presets || []).map(({ id, name }) => ({ value: id, label: name }));
    const preset = select(
      t("Preset"),
      [{ value: "", label: t("As in this session") }, ...presets],
      wanted.preset || "",
    );
    const engine = wanted.engine;
    const model = select(t("Model"), models, engine ? JSON.stringify(engine) : engine === null ? LOADED : OWN);
    model.element.hidden = !settings?.engines?.length;
    const seed = h("input", {
      type: "text",
      inputmode: "numeric",
      class: "text-input",
      pattern: "[0-9]{1,16}", // the server says if it is over 2^53
      title: settings?.parameters.find(({ name }) => name === "seed")?.help,
      placeholder: t("random"),
    });
    seed.value = wanted.seed ?? "";
    const legend = h("legend", { class: "group-label" });
    const away = iconButton("x", "", () => {
      columns = columns.filter((each) => each !== made);
      element.remove();
      number();
      columns.at(-1)?.element.querySelector("select")?.focus();
    });
    const element = h(
      "fieldset",
      { class: "compare-fields" },
      legend,
      away,
      bot.element,
      preset.element,
      model.element,
      h("label", { class: "stacked" }, h("span", { class: "label", text: t("Seed") }), seed),
    );
    const made = {
      element,
      model,
      /** @param {number} at @param {boolean} canGo */
      setNumber(at, canGo) {
        const text = t("Column {number}", { number: count(at) });
        legend.textContent = text;
        away.hidden = !canGo;
        away.ariaLabel = away.title = t("Remove column {number}", { number: count(at) });
      },
      /** @returns {Wanted} */
      wanted() {
        /** @type {Wanted} */
        const found = { bot: bot.value() };
        if (preset.value()) found.preset = preset.value();
        if (seed.value.trim()) found.seed = Number(seed.value.trim());
        if (model.value() !== OWN) found.engine = model.value() ? JSON.parse(model.value()) : null;
        return found;
      },
    };
    return made;
  }

  /** What engines elsewhere offer; again while lists are still being read. */
  async function readModels(tries = 20) {
    const body = await get("/api/models").catch(() => null);
    if (!body) return;
    for (const { engine, name } of /** @type {Model[]} */ (body.models)) {
      const value = engine && JSON.stringify({ id: engine.id, model: engine.model });
      if (value && !models.some((one) => one.value === value)) models.push({ value, label: name });
    }
    for (const each of columns) each.model.offer(models);
    if (body.engines.some((engine) => !engine.is_read) && tries && place.isConnected)
      setTimeout(() => readModels(tries - 1), 700);
  }

  const last = (before?.columns || []).filter((each) => bots.some((bot) => bot.id === each.bot));
  const wanted = last.map((each) => ({
    bot: each.bot,
    ...(each.preset && { preset: each.preset }),
    ...(each.seed !== null && { seed: each.seed }),
    ...("engine" in each && { engine: each.engine }),
  }));
  for (const each of wanted.length >= LEAST ? wanted : [undefined, undefined]) addColumn(each);
  if (settings?.engines?.length) readModels();

  return { element: place, add, wanted: () => columns.map((each) => each.wanted()) };
}

/** @param {string} label @param {{value: string, label: string}[]} options @param {string} chosen */
function select(label, options, chosen) {
  const element = /** @type {HTMLSelectElement} */ (h("select", { class: "select" }));

  /** @param {{value: string, label: string}[]} offered */
  function offer(offered) {
    const before = element.value || chosen;
    element.replaceChildren(...offered.map((one) => h("option", { value: one.value, text: one.label })));
    element.value = offered.some((one) => one.value === before) ? before : offered[0]?.value || "";
  }

  offer(options);
  return {
    element: h(
      "label",
      { class: "stacked" },
      h("span", { class: "label", text: label }),
      h("span", { class: "select-frame" }, element, icon("chevron-down")),
    ),
    offer,
    value: () => element.value,
  };
}
