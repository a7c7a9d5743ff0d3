// @ts-check
/**
 * Small helpers to build elements. Text only ever enters through text nodes; there is no way here to pass
 * HTML or a style attribute (the content security policy forbids both). Knows nothing of sessions or
 * messages.
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Build an element. `class` and `text` are shorthands, `on` holds listeners, `data` the dataset; a value of
 * false, null or undefined leaves its attribute out, true sets it empty.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "on")
      for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child || child === "") element.append(child);
  return element;
}

/**
 * An icon of the sprite, which index.html carries, for decoration only: the button around it carries the
 * name.
 * @param {string} name
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/**
 * A button that shows only an icon; `label` is its name for screen readers and its tooltip.
 * @param {string} name
 * @param {string} label
 * @param {(event: MouseEvent) => void} onClick
 * @param {Record<string, any>} [props]
 */
export function iconButton(name, label, onClick, props = {}) {
  const { class: extra = "", ...rest } = props;
  return h(
    "button",
    {
      type: "button",
      class: `icon-button ${extra}`,
      "aria-label": label,
      title: label,
      on: { click: onClick },
      ...rest,
    },
    icon(name),
  );
}

const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/**
 * The first character of a name as people see it (a whole emoji, not half of one).
 * @param {string} name
 */
export function initial(name) {
  const [first] = segmenter.segment(name.trim());
  return first ? first.segment.toUpperCase() : "?";
}

/**
 * Black or white, whichever reads better on `color` (WCAG relative luminance; one of them always reaches
 * 4.5:1).
 * @param {string} color six-digit hex
 */
export function inkOn(color) {
  const channels = [1, 3, 5].map((at) => {
    const value = parseInt(color.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2];
  return 1.05 / (luminance + 0.05) >= 4.5 ? "#ffffff" : "#000000";
}

/** The colour of whoever has none. */
export const PLAIN_COLOR = "#6d6659";

/**
 * A round monogram in somebody's own colour; always beside the written name, so it is hidden from screen
 * readers.
 * @param {string} name
 * @param {string} [color]
 * @param {string} [extraClass]
 * @param {string} [picture] the address of a picture, which covers the letter
 */
export function monogram(name, color = PLAIN_COLOR, extraClass = "", picture = "") {
  const safe = /^#[0-9a-f]{6}$/i.test(color) ? color : PLAIN_COLOR;
  const element = h("span", { class: `monogram ${extraClass}`, "aria-hidden": "true", text: initial(name) });
  element.style.backgroundColor = safe;
  element.style.color = inkOn(safe);
  if (picture) element.append(h("img", { src: picture, alt: "" }));
  return element;
}

/**
 * Set a text, unless it is there already: the page is laid out again even for the same one.
 * @param {HTMLElement} element @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Make a text box as high as what it holds, to be measured without a height of its own. What stands around it
 * keeps its height meanwhile: the conversation at its end would else be moved.
 * @param {HTMLTextAreaElement} area @param {HTMLElement} around @param {number} [most] in pixels
 */
export function fitHeight(area, around, most = Infinity) {
  const borders = area.offsetHeight - area.clientHeight;
  around.style.height = `${around.offsetHeight}px`;
  area.style.height = "auto";
  const height = Math.min(area.scrollHeight + borders, most);
  area.style.height = `${height}px`;
  around.style.height = "";
}

/** @param {string} id @returns {any} */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no element #${id}`);
  return element;
}
