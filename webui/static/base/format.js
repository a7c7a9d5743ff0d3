// @ts-check
/** Numbers, times and sizes as people read them. Pure functions. */

import { t, tn, locale } from "./language.js";

const whole = new Intl.NumberFormat(locale);
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayAndClock = new Intl.DateTimeFormat(locale, {
  dateStyle: "medium",
  timeStyle: "short",
  hourCycle: "h23",
});

/** @param {number} value */
export const count = (value) => whole.format(Math.round(value));

/** By decimals; to make one takes a third of the time of a frame. @type {Intl.NumberFormat[]} */
const decimal = [];

/** With so many decimals. @param {number} value @param {number} decimals */
export const fixed = (value, decimals) =>
  (decimal[decimals] ||= new Intl.NumberFormat(locale, {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  })).format(value);

/** A share. @param {number} share 0 to 1 @param {number} least decimals @param {number} [most] decimals */
export const percent = (share, least, most = least) =>
  share.toLocaleString(locale, { style: "percent", minimumFractionDigits: least, maximumFractionDigits: most });

/** @param {number} n */
export const tokens = (n) => tn("{count} token", "{count} tokens", n);

/** @param {number} seconds since the epoch */
export const fullTime = (seconds) => dayAndClock.format(seconds * 1000);

const dayShort = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" });

/** The time today, with its day before that. @param {number} seconds since the epoch @param {Date} [now] */
export function messageTime(seconds, now = new Date()) {
  const at = new Date(seconds * 1000);
  return at.toDateString() === now.toDateString()
    ? clock.format(at)
    : `${dayShort.format(at)}, ${clock.format(at)}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) return t("{seconds} s", { seconds: fixed(seconds, seconds < 1 ? 2 : 1) });
  return t("{minutes} min {seconds} s", { minutes: Math.floor(seconds / 60), seconds: Math.round(seconds % 60) });
}

/** @param {number} seconds */
export function wholeSeconds(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return t("{seconds} s", { seconds: whole });
  return t("{minutes} min {seconds} s", { minutes: Math.floor(whole / 60), seconds: whole % 60 });
}

/** @param {number} bytes */
export function bytes(bytes) {
  if (bytes >= 1e9) return `${fixed(bytes / 1e9, 1)} GB`;
  return `${count(Math.max(1, bytes / 1e6))} MB`;
}

/** Of a model. @param {number} n */
export const parameters = (n) =>
  n >= 1e9
    ? t("{number} billion", { number: fixed(n / 1e9, 1) })
    : t("{number} million", { number: fixed(n / 1e6, 1) });

/** @param {number} tokensPerSecond */
export const speed = (tokensPerSecond) => t("{rate} tokens/s", { rate: fixed(tokensPerSecond, 1) });

/**
 * A value with as many decimals as its step has.
 * @param {number} value
 * @param {number} step
 */
export function stepped(value, step) {
  const decimals = (String(step).split(".")[1] || "").length;
  return value.toFixed(decimals);
}

/**
 * The heading under which a session stands in the list.
 * @param {number} seconds since the epoch
 * @param {Date} [now]
 */
export function ageGroup(seconds, now = new Date()) {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const at = seconds * 1000;
  if (at >= midnight) return t("Today");
  if (at >= midnight - 86_400_000) return t("Yesterday");
  if (at >= midnight - 6 * 86_400_000) return t("This week");
  return t("Older");
}

/** A sampling value in a sentence. @param {import("../types.js").Parameter} spec @param {any} value */
export function shown(spec, value) {
  if (typeof value === "number") return stepped(value, spec.step ?? 1);
  if (value === null) return spec.empty || t("none");
  if (spec.type === "choice") return value || t("as the model does");
  return Array.isArray(value) ? value.map((one) => JSON.stringify(one)).join(" ") : JSON.stringify(value);
}

/** Facts in a row, without those that are empty; a line breaks after a point. @param {...any} facts */
export const inRow = (...facts) => facts.filter(Boolean).join("\u00a0· ");

/** The numbers of a reply in one line. @param {import("../types.js").Message} message */
export function numbers(message) {
  return inRow(
    message.tokens_per_second && speed(message.tokens_per_second),
    message.seconds_to_first_token && t("first token {time}", { time: duration(message.seconds_to_first_token) }),
    message.new_tokens && tokens(message.new_tokens),
  );
}

const list = new Intl.ListFormat(locale);

/** Names in a sentence. @param {string[]} names */
export const listed = (names) => list.format(names);

/** Whether people would take two names for one. @param {string} a @param {string} b */
export const isSameName = (a, b) => a.trim().localeCompare(b.trim(), undefined, { sensitivity: "accent" }) === 0;
