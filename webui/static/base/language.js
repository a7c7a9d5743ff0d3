// @ts-check
/**
 * What the page says, in the language that it is read in. Sentences stand in the sources in English; the
 * server puts those of another language in their place (webui/languages.py), so that here are no words. The
 * texts must be literals: that is how they are found.
 */

const { lang } = document.documentElement;

/** For numbers and dates: as people of that language write them where the browser's owner is. */
export const locale = navigator.languages?.find((one) => one.split("-")[0] === lang.split("-")[0]) || lang;
const rules = new Intl.PluralRules(lang);
const number = new Intl.NumberFormat(locale);

const PLACE = /\{(\w+)\}/;

/** @param {any} value */
const written = (value) => (typeof value === "number" ? number.format(value) : String(value));

/**
 * A sentence; each {name} in it is filled in, numbers as people write them.
 * @param {string} text @param {Record<string, any>} [values]
 */
export const t = (text, values = {}) =>
  text.replace(new RegExp(PLACE, "g"), (place, name) => written(values[name] ?? place));

/**
 * One of two sentences, by the number; {count} is that number.
 * @param {string} one @param {string} many @param {number} count @param {Record<string, any>} [values]
 */
export const tn = (one, many, count, values = {}) =>
  t(rules.select(count) === "one" ? one : many, { count, ...values });

/**
 * Sentences after each other, without those that are empty; no space stands after a full-width stop.
 * @param {...any} said
 */
export const together = (...said) =>
  said
    .filter(Boolean)
    .map((one) => (/[。！？]$/.test(one) ? one : `${one} `))
    .join("")
    .trimEnd();

/**
 * A sentence with elements in it, as children of another one.
 * @param {string} text @param {Record<string, Node | string>} values @returns {(Node | string)[]}
 */
export const tParts = (text, values) => text.split(PLACE).map((part, at) => (at % 2 ? values[part] : part));
