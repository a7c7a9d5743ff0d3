// @ts-check
/**
 * The sampling values of the session on screen: what is in force, and how it is changed. The session keeps
 * only what differs from its preset and from what its bots have of their own.
 * @import { Parameter } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { shown } from "../base/format.js";
import { t } from "../base/language.js";
import { botOf } from "../session/store.js";

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

/** @param {Store} store @param {Room} room */
export function samplingValues(store, room) {
  const preset = () => store.state.settings?.presets.find((one) => one.id === store.state.session?.preset);

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
  function set(spec, value) {
    const { session } = store.state;
    if (!session) return;
    const { [spec.name]: _, ...others } = session.sampling;
    const isBase = isOne(spec) && same(value, baseValue(spec));
    room.change({ sampling: isBase ? others : { ...others, [spec.name]: value } });
  }

  /** @param {Parameter} spec */
  function reset(spec) {
    const { [spec.name]: _, ...others } = store.state.session?.sampling || {};
    room.change({ sampling: others });
  }

  /** Whether a model here thinks, and how it can be told how much. */
  function thinking() {
    const { status, session } = store.state;
    const elsewhere = (session?.bots || []).some((entry) => botOf(store.state, entry.id)?.engine);
    const { thinks = false, efforts = [] } = status?.model || {};
    return { budget: thinks, efforts: elsewhere ? ["none", "low", "medium", "high"] : thinks ? efforts : [] };
  }

  return {
    preset,
    set,

    /** Which are shown, and what can be chosen: another text when that changes. */
    offered() {
      return JSON.stringify(this.parameters().map(({ name, choices }) => [name, choices]));
    },

    /** Those that do something with the models of this session, or have a value. */
    parameters() {
      const { budget, efforts } = thinking();
      return (store.state.settings?.parameters || [])
        .map((spec) =>
          spec.name === "reasoning_effort"
            ? { ...spec, choices: spec.choices?.filter((one) => !one || [...efforts, this.of(spec)].includes(one)) }
            : spec,
        )
        .filter((spec) => {
          const counts = spec.type === "choice" ? efforts.length > 0 : budget;
          return spec.group !== "thinking" || counts || this.isSet(spec);
        });
    },

    /** The value in force; `bot`: for that one, by its id. @param {Parameter} spec @param {string} [bot] */
    of(spec, bot = "") {
      const set = store.state.session?.sampling || {};
      if (spec.name in set) return set[spec.name];
      return preset()?.sampling[spec.name] ?? botOf(store.state, bot)?.sampling[spec.name] ?? baseValue(spec);
    },

    /** Whether the session says something of its own. @param {Parameter} spec */
    isSet: (spec) => spec.name in (store.state.session?.sampling || {}),

    /** How a control sets it. @param {Parameter} spec */
    fieldOptions: (spec) => ({
      most: TOKEN_COUNTS.has(spec.name) ? store.state.settings?.limits.max_seq_len : undefined,
      /** @param {any} value */
      onChange: (value) => set(spec, value),
      onReset: () => reset(spec),
    }),

    /** What the session's bots have of their own, and whether it counts. @param {Parameter} spec */
    noteOn(spec) {
      const own = ownValues(spec).map(({ name, value }) => `${name} ${shown(spec, value)}`);
      if (!own.length) return "";
      const changed = spec.name in (store.state.session?.sampling || {});
      const counts = !changed && preset()?.sampling[spec.name] === undefined;
      const values = { values: own.join(", ") };
      return counts
        ? t("Of their own: {values}, unless it is set here.", values)
        : t("Set here; of their own: {values}.", values);
    },
  };
}
