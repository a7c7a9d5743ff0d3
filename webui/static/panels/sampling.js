// @ts-check
/**
 * The Sampling tab: the preset and every parameter of the session, each with the value in force. The session
 * keeps only what differs from its preset and from what its bots have of their own.
 * @import { Parameter } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h, icon } from "../base/dom.js";
import { plural, shown } from "../base/format.js";
import { botOf } from "../session/store.js";
import { parameterField } from "./field.js";
import { createPresetMenu } from "./preset-menu.js";

/** Groups in the order of the page; what the server adds comes last. */
const GROUPS = [
  ["sampling", ""],
  ["penalties", "Repetition"],
  ["length", "Length and stopping"],
  ["samplers", "More samplers"],
  ["advanced", "Advanced"],
];
const FOLDED = new Set(["samplers", "advanced"]);
/** These count tokens; more than the context holds is no use on a slider. */
const TOKEN_COUNTS = new Set([
  "repetition_range",
  "repetition_decay",
  "dry_penalty_last_n",
  "max_new_tokens",
  "min_new_tokens",
]);

/** @param {any} a @param {any} b */
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** @param {Store} store @param {Room} room @param {() => Promise<void>} reloadSettings */
export function createSampling(store, room, reloadSettings) {
  /**
   * @type {Map<string, {spec: Parameter, show: (value: any, changed: boolean, override: string) => void}>}
   */
  const fields = new Map();
  const select = /** @type {HTMLSelectElement} */ (
    h("select", { class: "select", "aria-labelledby": "preset-label" })
  );
  const changes = h("span", { class: "quiet tabular", id: "preset-changes" });
  const controls = h("div", {});
  const body = h(
    "div",
    {},
    h(
      "div",
      { class: "field-head" },
      h("span", { class: "group-label", id: "preset-label", text: "Preset" }),
      changes,
    ),
    h("div", { class: "select-frame" }, select, icon("chevron-down")),
    controls,
  );
  const resetAll = h("button", {
    type: "button",
    class: "text-button",
    text: "Reset to defaults",
    on: { click: () => room.change({ sampling: {}, preset: "balanced" }) },
  });
  const save = h("button", {
    type: "button",
    class: "text-button",
    text: "Save as preset",
    "aria-haspopup": "menu",
    on: { click: () => openPresetMenu(save, preset()) },
  });
  const foot = h("div", { class: "panel-foot" }, resetAll, save);

  const openPresetMenu = createPresetMenu(store, room, reloadSettings);
  const presets = () => store.state.settings?.presets || [];
  const preset = () => presets().find((one) => one.id === store.state.session?.preset);

  /** What the bots of the session have of their own. @param {Parameter} spec */
  const ownValues = (spec) =>
    (store.state.session?.bots || [])
      .map((entry) => botOf(store.state, entry.id))
      .filter((bot) => bot && spec.name in bot.sampling)
      .map((bot) => ({ name: bot?.name, value: bot?.sampling[spec.name] }));

  /**
   * Whether all bots of the session have the same value, where the session says nothing.
   * @param {Parameter} spec
   */
  function isOne(spec) {
    const own = ownValues(spec);
    const all = own.length === (store.state.session?.bots || []).length;
    const fromPreset = preset()?.sampling[spec.name] !== undefined;
    return fromPreset || !own.length || (all && own.every(({ value }) => same(value, own[0].value)));
  }

  /** The value in force where the session says nothing. @param {Parameter} spec */
  const baseValue = (spec) =>
    preset()?.sampling[spec.name] ?? (isOne(spec) ? ownValues(spec)[0]?.value : undefined) ?? spec.default;

  /** @param {Parameter} spec @param {any} value */
  function setValue(spec, value) {
    const { session } = store.state;
    if (!session) return;
    const { [spec.name]: _, ...others } = session.sampling;
    const isBase = isOne(spec) && same(value, baseValue(spec));
    room.change({ sampling: isBase ? others : { ...others, [spec.name]: value } });
  }

  /** @param {Parameter} spec */
  function resetValue(spec) {
    const { [spec.name]: _, ...others } = store.state.session?.sampling || {};
    room.change({ sampling: others });
  }

  function build() {
    const { settings } = store.state;
    if (!settings) return;
    fields.clear();
    const most = settings.limits.max_seq_len;
    const parts = [];
    for (const [group, title] of GROUPS) {
      const specs = settings.parameters.filter(
        (spec) =>
          spec.group === group || (group === "advanced" && !GROUPS.some(([known]) => known === spec.group)),
      );
      if (!specs.length) continue;
      const made = specs.map((spec) => {
        const field = parameterField(spec, {
          most: TOKEN_COUNTS.has(spec.name) ? most : undefined,
          onChange: (value) => setValue(spec, value),
          onReset: () => resetValue(spec),
        });
        fields.set(spec.name, { spec, show: field.show });
        return field.element;
      });
      parts.push(
        FOLDED.has(group)
          ? h("details", { class: "field-group" }, h("summary", { class: "group-label", text: title }), ...made)
          : h(
              "section",
              { class: "field-group" },
              title && h("h2", { class: "group-label", text: title }),
              ...made,
            ),
      );
    }
    controls.replaceChildren(...parts);
    show();
  }

  /**
   * What the session's bots have of their own, and whether it counts.
   * @param {Parameter} spec @param {boolean} changed
   */
  function noteOn(spec, changed) {
    const own = ownValues(spec).map(({ name, value }) => `${name} has ${shown(spec, value)}`);
    if (!own.length) return "";
    const counts = !changed && preset()?.sampling[spec.name] === undefined;
    const what = `${own.join(", ")} of ${own.length > 1 ? "their" : "its"} own`;
    return counts ? `${what}, unless it is set here.` : `Set here; ${what}.`;
  }

  function show() {
    const { session } = store.state;
    if (!session || !fields.size) return;
    select.replaceChildren(
      ...presets().map((one) => {
        const option = h("option", { value: one.id, text: one.name });
        option.selected = one.id === session.preset;
        return option;
      }),
    );
    for (const { spec, show: showField } of fields.values()) {
      const changed = spec.name in session.sampling;
      showField(changed ? session.sampling[spec.name] : baseValue(spec), changed, noteOn(spec, changed));
    }
    const many = Object.keys(session.sampling).length;
    changes.textContent = many ? `${plural(many, "change")} from “${preset()?.name || "?"}”` : "";
    resetAll.disabled = !many && session.preset === "balanced";
  }

  select.addEventListener("change", () => room.change({ preset: select.value, sampling: {} }));
  store.on(["settings"], build);
  store.on(["session", "bots"], show);
  build();
  return { body, foot };
}
