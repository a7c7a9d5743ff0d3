// @ts-check
/**
 * The Sampling tab: the preset and every parameter of the session, each with the value in force.
 * @import { Parameter } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h, icon } from "../base/dom.js";
import { t, tn } from "../base/language.js";
import { parameterField } from "./field.js";
import { samplingValues } from "./sampling-values.js";

/** Groups in the order of the page; what the server adds comes last. */
const GROUPS = [
  ["sampling", ""],
  ["penalties", t("Repetition")],
  ["length", t("Length and stopping")],
  ["thinking", t("Thinking")],
  ["samplers", t("More samplers")],
  ["guidance", t("Guidance")],
  ["advanced", t("Advanced")],
];
const FOLDED = new Set(["samplers", "guidance", "advanced"]);

/** @param {Store} store @param {Room} room @param {() => Promise<void>} reloadSettings */
export function createSampling(store, room, reloadSettings) {
  /**
   * @type {Map<string, {spec: Parameter, element: HTMLElement,
   *   show: (value: any, changed: boolean, override: string) => void}>}
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
      h("span", { class: "group-label", id: "preset-label", text: t("Preset") }),
      changes,
    ),
    h("div", { class: "select-frame" }, select, icon("chevron-down")),
    h("button", {
      type: "button",
      class: "text-button xray-open",
      text: t("See what they do to the next token"),
      "aria-haspopup": "dialog",
      on: { click: async () => (await import("./xray.js")).openXray(store, room) },
    }),
    controls,
  );
  const resetAll = h("button", {
    type: "button",
    class: "text-button",
    text: t("Reset to defaults"),
    on: { click: () => room.change({ sampling: {}, preset: "balanced" }) },
  });
  const save = h("button", {
    type: "button",
    class: "text-button",
    text: t("Save as preset"),
    "aria-haspopup": "menu",
    on: { click: openPresetMenu },
  });
  const foot = h("div", { class: "panel-foot" }, resetAll, save);

  async function openPresetMenu() {
    const { createPresetMenu } = await import("./preset-menu.js");
    createPresetMenu(store, room, reloadSettings)(save, preset());
  }
  const presets = () => store.state.settings?.presets || [];
  const values = samplingValues(store, room);
  const { preset } = values;

  let built = "";

  function build() {
    const { settings } = store.state;
    if (!settings) return;
    fields.clear();
    const parts = [];
    built = values.offered();
    for (const [group, title] of GROUPS) {
      const specs = values.parameters().filter(
        (spec) =>
          spec.group === group || (group === "advanced" && !GROUPS.some(([known]) => known === spec.group)),
      );
      if (!specs.length) continue;
      const made = specs.map((spec) => {
        const field = parameterField(spec, values.fieldOptions(spec));
        fields.set(spec.name, { spec, element: field.element, show: field.show });
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
    for (const { spec, show: showField } of fields.values())
      showField(values.of(spec), values.isSet(spec), values.noteOn(spec));
    const [scale, negative] = ["guidance_scale", "negative_prompt"].map((name) => fields.get(name));
    if (scale && negative) negative.element.hidden = values.of(scale.spec) === 1 && !values.of(negative.spec);
    const many = Object.keys(session.sampling).length;
    changes.textContent = many ? tn("One change from “{name}”", "{count} changes from “{name}”", many, { name: preset()?.name || "?" }) : "";
    resetAll.disabled = !many && session.preset === "balanced";
  }

  select.addEventListener("change", () => room.change({ preset: select.value, sampling: {} }));
  store.on(["settings"], build);
  store.on(["status", "session", "bots"], () => built !== values.offered() && build());
  store.on(["session", "bots"], show);
  build();
  return { body, foot };
}
