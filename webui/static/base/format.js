// @ts-check
/** Numbers, times and sizes as people read them. Pure functions. */

const whole = new Intl.NumberFormat("en-US");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayAndClock = new Intl.DateTimeFormat(undefined, {
  dateStyle: "medium",
  timeStyle: "short",
  hourCycle: "h23",
});

/** @param {number} value */
export const count = (value) => whole.format(Math.round(value));

/** @param {number} n @param {string} one @param {string} [many] */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** @param {number} seconds since the epoch */
export const fullTime = (seconds) => dayAndClock.format(seconds * 1000);

const dayShort = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/** The time today, with its day before that. @param {number} seconds since the epoch @param {Date} [now] */
export function messageTime(seconds, now = new Date()) {
  const at = new Date(seconds * 1000);
  return at.toDateString() === now.toDateString()
    ? clock.format(at)
    : `${dayShort.format(at)}, ${clock.format(at)}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 1) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** @param {number} seconds */
export function wholeSeconds(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** @param {number} bytes */
export function bytes(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  return `${Math.max(1, Math.round(bytes / 1e6))} MB`;
}

/** @param {number} tokensPerSecond */
export const speed = (tokensPerSecond) => `${tokensPerSecond.toFixed(1)} tokens/s`;

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
  if (at >= midnight) return "Today";
  if (at >= midnight - 86_400_000) return "Yesterday";
  if (at >= midnight - 6 * 86_400_000) return "This week";
  return "Older";
}

/** A sampling value in a sentence. @param {import("../types.js").Parameter} spec @param {any} value */
export function shown(spec, value) {
  if (typeof value === "number") return stepped(value, spec.step ?? 1);
  if (value === null) return spec.empty || "none";
  if (spec.type === "choice") return value || "as the model does";
  return Array.isArray(value) ? value.map((one) => JSON.stringify(one)).join(" ") : JSON.stringify(value);
}

/** The numbers of a reply in one line. @param {import("../types.js").Message} message */
export function numbers(message) {
  return [
    message.tokens_per_second && speed(message.tokens_per_second),
    message.seconds_to_first_token && `first token ${duration(message.seconds_to_first_token)}`,
    message.new_tokens && plural(message.new_tokens, "token"),
  ]
    .filter(Boolean)
    .join(" · ");
}

const list = new Intl.ListFormat(document.documentElement.lang);

/** Names in a sentence. @param {string[]} names */
export const listed = (names) => list.format(names);

/** Whether people would take two names for one. @param {string} a @param {string} b */
export const isSameName = (a, b) => a.trim().localeCompare(b.trim(), undefined, { sensitivity: "accent" }) === 0;
