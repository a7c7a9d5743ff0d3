// @ts-check
/**
 * What the stages of sampling leave of the next token's probabilities, stage by stage: `sample` of
 * model/kernels/reference/sampling.py over the server's candidates, which stand one by one, and groups of
 * others. Pure functions; knows no element.
 * @import { Candidate, NextToken } from "../types.js"
 */

/**
 * What is there after a stage. `p` is the probability of one token of each item, `left` how many tokens of it
 * are left; items are the candidates in the server's order, then the groups. `tokens` are left in all, `cut`
 * is the share of the probability before that the stage took away, `temperature` what it came to, `touched`
 * are the candidates whose logits a stage changed.
 * @typedef {{name: string, p: Float64Array, left: Float64Array, tokens: number, cut: number,
 *   temperature?: number, touched?: number[]}} Step
 */

export const OF_LOGITS = ["penalties", "dry"];
/** A token so far below the likeliest one has no weight. */
const FAR_BELOW = 708;
const LEAST_TEMPERATURE = 1e-6;
const MOST_BEYOND_ALLOWED = 256;
const MOST_PENALTY = 1e30;

/** Whether a stage does something. @type {Record<string, (s: Record<string, any>) => boolean>} */
const DOES = {
  penalties: (s) => s.repetition_penalty !== 1 || s.presence_penalty !== 0 || s.frequency_penalty !== 0,
  dry: (s) => s.dry_multiplier > 0 && s.dry_penalty_last_n !== 0,
  top_n_sigma: (s) => s.top_n_sigma > 0,
  temperature: (s) => s.temperature !== 1 || s.dynatemp_range > 0,
  top_k: (s) => s.top_k > 0,
  top_p: (s) => s.top_p < 1,
  min_p: (s) => s.min_p > 0,
  typical_p: (s) => s.typical_p < 1,
  xtc: (s) => s.xtc_probability > 0,
};

/** The stages that do something, in the order in force. @param {Record<string, any>} settings */
export function activeStages(settings) {
  const stages = settings.samplers.filter((name) => DOES[name](settings));
  if (!settings.mirostat) return stages;
  return [...stages.filter((name) => [...OF_LOGITS, "temperature"].includes(name)), "mirostat"];
}

/**
 * The model alone, then what each stage that does something leaves. What biases, bans and the fewest tokens
 * do is a stage of its own, "bias". At temperature 0 the stage "temperature" is the last.
 * @param {NextToken} next
 * @param {Record<string, any>} settings every sampling value
 * @param {boolean} [strikes] whether XTC does what it does only sometimes
 * @returns {Step[]}
 */
export function chain(next, settings, strikes = true) {
  const { tokens, rest } = next;
  const x = Float64Array.from([...tokens.map((one) => one.logit), ...rest.map(([logit]) => logit)]);
  const count = Float64Array.from([...tokens.map(() => 1), ...rest.map(([, many]) => many)]);
  const steps = [stepOf("model", x.map((one) => one - greatest(x)), count, 1, null)];
  const note = (name, left, y, temperature) =>
    steps.push(stepOf(name, y, left, temperature, /** @type {Step} */ (steps.at(-1))));

  const stages = activeStages(settings);
  /** @param {string} name @param {(one: Candidate, x: number) => number} change */
  const changeLogits = (name, change) => {
    const before = x.slice();
    tokens.forEach((one, at) => (x[at] = change(one, x[at])));
    note(name, possible(x, count), below(x), 1);
    const touched = [...tokens.keys()].filter((at) => x[at] !== before[at]);
    return Object.assign(/** @type {Step} */ (steps.at(-1)), { touched });
  };
  for (const name of stages.filter((one) => OF_LOGITS.includes(one)))
    changeLogits(name, name === "dry" ? repeated(next, settings) : penalized(next, settings));
  if (!changeLogits("bias", biased(next, settings)).touched.length) steps.pop();
  const left = possible(x, count);
  if (!left.some((many) => many > 0)) return steps;

  const ids = (at) => tokens[at]?.id ?? Infinity;
  const order = Uint32Array.from(x.keys()).sort((a, b) => x[b] - x[a] || ids(a) - ids(b));
  if (settings.temperature === 0 && stages.includes("temperature")) {
    left.fill(0)[order[0]] = 1;
    note("temperature", left, below(x), 0);
    return steps;
  }
  let y = below(x);
  let temperature = 1;
  const dropFar = () => left.forEach((_, at) => (y[at] / temperature >= -FAR_BELOW ? 0 : (left[at] = 0)));
  for (const name of stages.filter((one) => !OF_LOGITS.includes(one))) {
    if (name === "temperature") {
      temperature = temperatureOf(y, left, settings);
      y = y.map((one, at) => (left[at] ? one : -Infinity));
      y = below(y);
      dropFar();
    } else {
      dropFar();
      CUTS[name]({ y, left, order, ids, temperature, settings, strikes });
    }
    note(name, left, y, temperature);
  }
  return steps;
}

/** @param {Float64Array} values */
const greatest = (values) => values.reduce((most, one) => (one > most ? one : most), -Infinity);
/** @param {Float64Array} x */
function below(x) {
  const most = greatest(x);
  return most === -Infinity ? x.slice() : x.map((one) => one - most);
}
/** @param {Float64Array} x @param {Float64Array} count */
const possible = (x, count) => count.map((many, at) => (x[at] > -Infinity ? many : 0));

/**
 * @param {string} name @param {Float64Array} y @param {Float64Array} left @param {number} temperature
 * @param {Step | null} before @returns {Step}
 */
function stepOf(name, y, left, temperature, before) {
  const p = shares(y, left, temperature);
  const tokens = left.reduce((sum, many) => sum + many, 0);
  const cut = before ? before.p.reduce((sum, one, at) => sum + one * Math.max(0, before.left[at] - left[at]), 0) : 0;
  return { name, p, left: left.slice(), tokens, cut, temperature: name === "temperature" ? temperature : undefined };
}

/** @param {number} y @param {number} temperature */
const weight = (y, temperature) => (temperature ? Math.exp(Math.max(-FAR_BELOW, y / temperature)) : 1);

/** Repetition, presence and frequency. @param {NextToken} next @param {Record<string, any>} settings */
function penalized({ num_tokens: all }, settings) {
  const reach = settings.repetition_range || all;
  const decay = settings.repetition_decay;
  /** @param {Candidate} one @param {number} x */
  return (one, x) => {
    const { back, count = 0 } = one;
    if (back === undefined) return x;
    if (back < reach + decay) {
      const faded = Math.max(0, back - reach) / Math.max(1, decay);
      const strength = settings.repetition_penalty + (1 - settings.repetition_penalty) * faded;
      x = x > 0 ? x / strength : x * strength;
    }
    return count ? x - (settings.presence_penalty + settings.frequency_penalty * count) : x;
  };
}

/** DRY. @param {NextToken} next @param {Record<string, any>} settings */
function repeated({ num_tokens: all }, settings) {
  const { dry_allowed_length: allowed, dry_penalty_last_n: last } = settings;
  const window = last >= 0 ? Math.min(last, all) : all;
  /** @param {Candidate} one @param {number} x */
  return ({ repeats = [] }, x) => {
    const n = Math.max(0, ...repeats.map(([b, long]) => Math.min(long, window - b, allowed + MOST_BEYOND_ALLOWED)));
    if (n < allowed) return x;
    return x - Math.min(settings.dry_multiplier * settings.dry_base ** (n - allowed), MOST_PENALTY);
  };
}

/** What is biased, banned or no end yet. @param {NextToken} next @param {Record<string, any>} settings */
function biased({ reply_length: written }, settings) {
  const banned = new Set(settings.banned_tokens);
  /** @param {Candidate} one @param {number} x */
  return (one, x) => {
    const isBanned = banned.has(one.id) || (one.ends && written < settings.min_new_tokens);
    return isBanned ? -Infinity : x + (settings.logit_bias[one.id] || 0);
  };
}

/** @param {Float64Array} y @param {Float64Array} left @param {Record<string, any>} settings */
function temperatureOf(y, left, settings) {
  const { temperature, dynatemp_range: range, dynatemp_exponent: exponent } = settings;
  const counted = left.map((many, at) => (y[at] >= -FAR_BELOW ? many : 0));
  const n = counted.reduce((sum, many) => sum + many, 0);
  if (!range || n === 1) return temperature;
  const share = Math.min(1, Math.max(0, entropyOf(shares(y, counted, 1), counted) / Math.log(n)));
  const low = Math.max(0, temperature - range);
  return Math.max(LEAST_TEMPERATURE, low + (temperature + range - low) * share ** exponent);
}

/**
 * The probability of one token of each item.
 * @param {Float64Array} y @param {Float64Array} left @param {number} temperature
 */
function shares(y, left, temperature) {
  const p = y.map((one, at) => (left[at] ? weight(one, temperature) : 0));
  const total = p.reduce((sum, one, at) => sum + one * left[at], 0);
  return total ? p.map((one) => one / total) : p;
}

/** In nats. @param {Float64Array} p @param {Float64Array} left */
const entropyOf = (p, left) => p.reduce((sum, one, at) => (one ? sum - left[at] * one * Math.log(one) : sum), 0);

/**
 * Keep of the items in `order` the first tokens whose weights add up to `share` of all.
 * @param {Iterable<number>} order @param {Cut} state @param {number} share
 */
function keepShortestRun(order, { y, left, temperature }, share) {
  const items = [...order].filter((at) => left[at]);
  const weights = items.map((at) => weight(y[at], temperature));
  const wanted = share * items.reduce((sum, at, index) => sum + left[at] * weights[index], 0);
  let running = 0;
  let isFull = false;
  items.forEach((at, index) => {
    const needed = Math.max(1, Math.ceil((wanted - running) / weights[index]));
    left[at] = isFull ? 0 : left[at] === 1 ? 1 : Math.min(left[at], needed);
    running += left[at] * weights[index];
    isFull ||= running >= wanted;
  });
}

/**
 * @typedef {{y: Float64Array, left: Float64Array, order: Uint32Array, ids: (at: number) => number,
 *   temperature: number, settings: Record<string, any>, strikes: boolean}} Cut
 */

/** What each stage cuts out of `left`. @type {Record<string, (state: Cut) => void>} */
const CUTS = {
  top_n_sigma({ y, left, settings }) {
    const n = left.reduce((sum, many) => sum + many, 0);
    const mean = y.reduce((sum, one, at) => (left[at] ? sum + left[at] * one : sum), 0) / n;
    const square = y.reduce((sum, one, at) => (left[at] ? sum + left[at] * (one - mean) ** 2 : sum), 0) / n;
    const most = y.reduce((best, one, at) => (left[at] && one > best ? one : best), -Infinity);
    const least = most - settings.top_n_sigma * Math.sqrt(square);
    y.forEach((one, at) => (one >= least ? 0 : (left[at] = 0)));
  },
  top_k({ left, order, settings }) {
    let room = settings.top_k;
    for (const at of order) {
      left[at] = Math.min(left[at], room);
      room -= left[at];
    }
  },
  top_p(state) {
    keepShortestRun(state.order, state, state.settings.top_p);
  },
  min_p({ y, left, order, temperature, settings }) {
    const first = /** @type {number} */ (order.find((at) => left[at]));
    const least = settings.min_p * weight(y[first], temperature);
    y.forEach((one, at) => (weight(one, temperature) >= least ? 0 : (left[at] = 0)));
  },
  typical_p(state) {
    const { y, left, order, ids, temperature, settings } = state;
    const p = shares(y, left, temperature);
    const entropy = entropyOf(p, left);
    const off = p.map((one) => Math.abs(entropy + Math.log(one)));
    keepShortestRun(order.slice().sort((a, b) => off[a] - off[b] || ids(a) - ids(b)), state, settings.typical_p);
  },
  xtc({ y, left, order, temperature, settings, strikes }) {
    if (!strikes) return;
    const p = shares(y, left, temperature);
    const likely = [...order].filter((at) => left[at] && p[at] >= settings.xtc_threshold);
    likely.forEach((at, index) => (left[at] = index === likely.length - 1 ? 1 : 0));
  },
  mirostat({ y, left, order, temperature, settings }) {
    const first = /** @type {number} */ (order.find((at) => left[at]));
    const least = 2 ** (-2 * settings.mirostat_tau);
    shares(y, left, temperature).forEach((p, at) => (at === first || p >= least ? 0 : (left[at] = 0)));
  },
};
