// @ts-check
/**
 * One sampling parameter as a control: label, number, slider, one line of help, reset. Ranges, steps and
 * help come from the server's list. Knows nothing of sessions.
 * @import { Parameter } from "../types.js"
 */

import { h, icon, iconButton } from "../base/dom.js";
import { listed, stepped } from "../base/format.js";
import { alongReading } from "../base/input.js";
import { t } from "../base/language.js";

const SLIDER_STEPS = 1000;

/**
 * Where a value stands on the slider, 0 to 1, and back. Wide ranges are bent so that the default stands near
 * the middle: half a slider for what is mostly wanted.
 * @param {number} low @param {number} high @param {number} usual
 */
export function scale(low, high, usual) {
  const share = (usual - low) / (high - low);
  let power = 1;
  if (high - low > 1.5)
    power =
      share > 0 && share < 0.45
        ? Math.min(4, Math.log(share) / Math.log(0.45))
        : share <= 0 && high - low > 10
          ? 3
          : 1;
  return {
    /** @param {number} value */
    toShare: (value) => Math.min(1, Math.max(0, (value - low) / (high - low))) ** (1 / power),
    /** @param {number} at */
    toValue: (at) => low + (high - low) * at ** power,
  };
}

/** @param {Parameter} spec @param {number} raw */
function snap(spec, raw) {
  const { min = 0, max = 1, step = 1 } = spec;
  const value = Math.min(max, Math.max(min, Math.round(raw / step) * step));
  return Number(stepped(value, step));
}

/**
 * A number as people write it: a comma stands before the decimals, or before thousands where there are no
 * decimals.
 * @param {string} text @param {boolean} whole
 */
export function readNumber(text, whole) {
  const grouped = whole && /^-?\d{1,3}(,\d{3})+$/.test(text.trim());
  const plain = text.trim().replace(grouped ? /,/g : /,(?=\d*$)/, grouped ? "" : ".");
  return /^-?(\d+\.?\d*|\.\d+)$/.test(plain) ? Number(plain) : null;
}

/**
 * @param {Parameter} spec
 * @param {{most?: number, onChange: (value: any) => void,
 *   onReset: () => void}} options `most`: a lower end for the slider than the range has
 */
export function numberField(spec, { most, onChange, onReset }) {
  const { min = 0, step = 1, nullable } = spec;
  const max = Math.min(spec.max ?? 1, most ?? Infinity);
  const id = `field-${spec.name}-${Math.random().toString(36).slice(2, 7)}`;
  const bent = nullable ? null : scale(min, max, spec.default);
  const number = /** @type {HTMLInputElement} */ (
    h("input", {
      id,
      type: "text", // a number's own box drops the comma that many people type
      class: "number tabular",
      inputmode: step < 1 ? "decimal" : "numeric",
      placeholder: nullable ? spec.empty : null,
      autocomplete: "off",
      "aria-describedby": `${id}-help`,
    })
  );
  const slider =
    bent &&
    /** @type {HTMLInputElement} */ (
      h("input", {
        type: "range",
        class: "slider",
        min: 0,
        max: SLIDER_STEPS,
        step: 1,
        "aria-label": spec.label,
        "aria-describedby": `${id}-help`,
      })
    );
  const reset = iconButton("rotate-ccw", t("Reset {name}", { name: spec.label }), () => onReset(), { class: "reset" });
  const note = h("p", { class: "help override", hidden: true });
  const said = h("p", { class: "help wrong", role: "alert", hidden: true });
  const element = h(
    "div",
    { class: "field", data: { parameter: spec.name } },
    h("div", { class: "field-head" }, h("label", { for: id, text: spec.label }), reset, number),
    slider,
    h("p", { class: "help", id: `${id}-help`, text: spec.help }),
    said,
    note,
  );

  /** @type {any} */
  let shown = spec.default;
  /** What take() has taken, and may be asked to take again: Enter is a change too. @type {string | null} */
  let taken = null;

  /** @param {any} value */
  function paint(value) {
    shown = value;
    taken = null;
    if (slider && bent) {
      const share = bent.toShare(value);
      slider.value = String(Math.round(share * SLIDER_STEPS));
      slider.style.setProperty("--share", `${share * 100}%`);
      slider.setAttribute("aria-valuetext", stepped(value, step));
    }
    if (document.activeElement !== number)
      number.value = value === null ? "" : nullable ? String(value) : stepped(value, step);
  }

  slider?.addEventListener("input", () => {
    const value = snap(spec, /** @type {any} */ (bent).toValue(Number(slider.value) / SLIDER_STEPS));
    paint(value);
    onChange(value);
  });
  slider?.addEventListener("keydown", (event) => {
    const by = alongReading(event.key) || { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (!by) return;
    event.preventDefault();
    const value = snap(spec, shown + by * step);
    paint(value);
    number.value = stepped(value, step);
    onChange(value);
  });
  /** @param {number} value */
  const written = (value) => (nullable ? String(value) : stepped(value, step));
  /** Take what was typed, and say what became of it if that is something else. */
  function take() {
    if (number.value === taken) return;
    const text = number.value.trim();
    const typed = readNumber(text, step >= 1);
    const value = typed === null ? (text === "" ? (nullable ? null : spec.default) : shown) : snap(spec, typed);
    const unlike = typed !== null && Math.abs(typed - value) > step / 2;
    said.hidden = !(unlike || (typed === null && text !== ""));
    said.textContent = unlike
      ? t("{text} is outside {min} to {max}; {value} is set.", {
          text,
          min: written(min),
          max: written(spec.max ?? max),
          value: written(value),
        })
      : t("“{text}” is not a number.", { text: text.slice(0, 20) });
    number.value = value === null ? "" : written(value);
    paint(value);
    onChange(value);
    taken = number.value;
  }
  number.addEventListener("change", take);
  number.addEventListener("keydown", (event) => {
    const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const typed = readNumber(number.value, step >= 1);
    if (event.key === "Enter") take();
    else if (by && typed !== null) {
      event.preventDefault();
      number.value = written(snap(spec, typed + by * step));
      take();
    }
  });

  return {
    element,
    /** @param {any} value @param {boolean} changed @param {string} override what the bots say about it */
    show(value, changed, override = "") {
      tellState({ element, reset, note }, changed, override);
      if (value !== shown) said.hidden = true;
      paint(value);
    },
  };
}

/**
 * Whether the value is another than the preset's, and what the bots say about it.
 * @param {{element: HTMLElement, reset: HTMLElement, note: HTMLElement}} parts
 * @param {boolean} changed @param {string} override
 */
function tellState({ element, reset, note }, changed, override) {
  element.classList.toggle("is-changed", changed);
  reset.hidden = !changed;
  note.hidden = !override;
  note.textContent = override;
}

const NEWLINE = /\n/g;

/** How each kind of list is written in its box, one entry a line, and read back. */
const LISTS = {
  strings: {
    write: (value) => value.map((text) => text.replaceAll("\\", "\\\\").replace(NEWLINE, "\\n")).join("\n"),
    read: (text) =>
      lines(text, false).map((line) => line.replace(/\\(n|\\)/g, (_, what) => (what === "n" ? "\n" : "\\"))),
    hint: t("One a line; \\n stands for a line break."),
  },
  names: {
    write: (value) => value.join("\n"),
    read: (text, { choices = [], first = [] }) => {
      const names = lines(text);
      names.forEach((name, index) => {
        if (!choices.includes(name)) fail(name, t("one of {names}", { names: choices.join(", ") }));
        if (names.indexOf(name) < index) fail(name, t("a name that stands once"));
        if (index && first.includes(name) && !first.includes(names[index - 1]))
          fail(name, t("in its place: {names} stand before the others", { names: listed(first) }));
      });
      return names;
    },
    hint: t("One a line."),
  },
  tokens: {
    write: (value) => value.join("\n"),
    read: (text) =>
      lines(text).map((line) => (/^\d+$/.test(line) ? Number(line) : fail(line, t("a token id such as 13")))),
    hint: t("One token id a line."),
  },
  bias: {
    write: (value) =>
      Object.entries(value)
        .map(([token, bias]) => `${token}: ${bias}`)
        .join("\n"),
    read: (text) =>
      Object.fromEntries(
        lines(text).map((line) => {
          const match = line.match(/^(\d+)\s*:\s*(-?\d+(?:\.\d+)?)$/);
          return match ? [match[1], Number(match[2])] : fail(line, t("a line such as 13: -2.5"));
        }),
      ),
    hint: t("A line each, such as 13: -2.5"),
  },
};

/** @param {string} text @param {boolean} [trim] */
const lines = (text, trim = true) =>
  text
    .split("\n")
    .map((line) => (trim ? line.trim() : line))
    .filter((line) => line.trim());

/** @param {string} line @param {string} expected @returns {never} */
function fail(line, expected) {
  throw new Error(t("“{line}” is not {expected}.", { line: line.slice(0, 40), expected }));
}

/**
 * @param {Parameter} spec
 * @param {{onChange: (value: any) => void, onReset: () => void}} options
 */
export function listField(spec, { onChange, onReset }) {
  const kind = LISTS[spec.type];
  const id = `field-${spec.name}-${Math.random().toString(36).slice(2, 7)}`;
  const area = /** @type {HTMLTextAreaElement} */ (
    h("textarea", {
      id,
      class: "text-input list",
      rows: Math.max(2, spec.default.length ?? 0),
      spellcheck: "false",
      autocomplete: "off",
      "aria-describedby": `${id}-help`,
    })
  );
  const wrong = h("p", { class: "help wrong", role: "alert", hidden: true });
  const note = h("p", { class: "help override", hidden: true });
  const reset = iconButton("rotate-ccw", t("Reset {name}", { name: spec.label }), () => {
    wrong.hidden = true;
    onReset();
  }, { class: "reset" });
  const element = h(
    "div",
    { class: "field", data: { parameter: spec.name } },
    h("div", { class: "field-head" }, h("label", { for: id, text: spec.label }), reset),
    area,
    h("p", { class: "help", id: `${id}-help`, text: `${spec.help} ${kind.hint}` }),
    wrong,
    note,
  );
  /** What the box showed before something wrong was typed: that stays until the value itself is another. */
  let before = "";
  /** @param {boolean} finished whether what is wrong should be said */
  const read = (finished) => {
    try {
      const value = kind.read(area.value, spec);
      wrong.hidden = true;
      onChange(value);
    } catch (error) {
      if (!finished) return;
      wrong.textContent = /** @type {Error} */ (error).message;
      wrong.hidden = false;
    }
  };
  area.addEventListener("input", () => read(false));
  area.addEventListener("change", () => read(true));
  return {
    element,
    /** @param {any} value @param {boolean} changed @param {string} override */
    show(value, changed, override = "") {
      tellState({ element, reset, note }, changed, override);
      const text = kind.write(value);
      if (document.activeElement === area || (!wrong.hidden && text === before)) return;
      wrong.hidden = true;
      area.value = before = text;
    },
  };
}

/** What the choices of a parameter are called. @type {Record<string, string>} */
const CHOICES = {
  "": t("As the model does"),
  none: t("Off"),
  low: t("Low"),
  medium: t("Medium"),
  high: t("High"),
};

/**
 * One of a few.
 * @param {Parameter} spec
 * @param {{onChange: (value: any) => void, onReset: () => void}} options
 */
function choiceField(spec, options) {
  const select = /** @type {HTMLSelectElement} */ (
    h(
      "select",
      { class: "select", on: { change: () => options.onChange(select.value) } },
      ...(spec.choices || []).map((value) => h("option", { value, text: CHOICES[value] || value })),
    )
  );
  return valueField(spec, select, h("div", { class: "select-frame" }, select, icon("chevron-down")), options);
}

/**
 * A text of several lines.
 * @param {Parameter} spec
 * @param {{onChange: (value: any) => void, onReset: () => void}} options
 */
function textField(spec, options) {
  const area = /** @type {HTMLTextAreaElement} */ (
    h("textarea", {
      class: "text-input",
      rows: 3,
      dir: "auto",
      maxlength: spec.max_length,
      autocomplete: "off",
      on: { input: () => options.onChange(area.value) },
    })
  );
  return valueField(spec, area, area, options);
}

/**
 * A control whose value is the parameter's, in `frame`.
 * @param {Parameter} spec @param {HTMLSelectElement | HTMLTextAreaElement} control @param {HTMLElement} frame
 * @param {{onReset: () => void}} options
 */
function valueField(spec, control, frame, { onReset }) {
  const id = `field-${spec.name}-${Math.random().toString(36).slice(2, 7)}`;
  control.id = id;
  control.setAttribute("aria-describedby", `${id}-help`);
  const reset = iconButton("rotate-ccw", t("Reset {name}", { name: spec.label }), () => onReset(), { class: "reset" });
  const note = h("p", { class: "help override", hidden: true });
  const element = h(
    "div",
    { class: "field", data: { parameter: spec.name } },
    h("div", { class: "field-head" }, h("label", { for: id, text: spec.label }), reset),
    frame,
    h("p", { class: "help", id: `${id}-help`, text: spec.help }),
    note,
  );
  return {
    element,
    /** @param {any} value @param {boolean} changed @param {string} override */
    show(value, changed, override = "") {
      tellState({ element, reset, note }, changed, override);
      if (control.value !== value && !(control.matches("textarea") && control === document.activeElement))
        control.value = value;
    },
  };
}

/** @param {Parameter} spec @param {any} options */
export function parameterField(spec, options) {
  if (spec.type === "choice") return choiceField(spec, options);
  if (spec.type === "text") return textField(spec, options);
  return spec.type === "float" || spec.type === "int" ? numberField(spec, options) : listField(spec, options);
}
