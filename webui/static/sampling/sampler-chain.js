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

/**
 * What is left on the way: items by number, the likeliest first, how many tokens of each, their logits below
 * the first one's, and what each token weighs.
 * @typedef {{order: number[], left: Float64Array, y: Float64Array, weight: Float64Array,
 *   temperature: number}} Left
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
  const ids = (at) => tokens[at]?.id ?? Infinity;
  let state = allOf(x, count, ids);
  const steps = [stepOf("model", state, null)];
  const last = () => /** @type {Step} */ (steps.at(-1));

  const stages = activeStages(settings);
  /** @param {string} name @param {(one: Candidate, x: number) => number} change */
  function changeLogits(name, change) {
    const changed = tokens.map((one, at) => change(one, x[at]));
    const touched = [...tokens.keys()].filter((at) => changed[at] !== x[at]);
    x.set(changed);
    if (touched.length) state = allOf(x, count, ids);
    if (touched.length || name !== "bias") steps.push({ ...stepOf(name, state, last()), touched });
  }
  for (const name of stages.filter((one) => OF_LOGITS.includes(one)))
    changeLogits(name, name === "dry" ? repeated(next, settings) : penalized(next, settings));
  changeLogits("bias", biased(next, settings));
  if (!state.order.length) return steps;

  if (settings.temperature === 0 && stages.includes("temperature")) {
    state.order = [state.order[0]];
    return [...steps, { ...stepOf("temperature", state, last()), temperature: 0 }];
  }
  for (const name of stages.filter((one) => !OF_LOGITS.includes(one))) {
    if (name === "temperature") weigh(state, temperatureOf(state, settings));
    dropFar(state);
    if (name !== "temperature") CUTS[name](state, settings, strikes, ids);
    steps.push({ ...stepOf(name, state, last()), temperature: state.temperature });
  }
  return steps;
}

/**
 * Before anything is cut.
 * @param {Float64Array} x logits @param {Float64Array} count @param {(at: number) => number} ids
 * @returns {Left}
 */
function allOf(x, count, ids) {
  const order = [...x.keys()].filter((at) => x[at] > -Infinity).sort((a, b) => x[b] - x[a] || ids(a) - ids(b));
  const state = { order, left: count.slice(), y: x.slice(), weight: new Float64Array(x.length), temperature: 1 };
  weigh(state, 1);
  return state;
}

/**
 * Measure all from the likeliest that is left, and weigh it anew.
 * @param {Left} state @param {number} temperature
 */
function weigh(state, temperature) {
  const { order, y, weight } = state;
  const best = y[order[0]];
  for (const at of order) {
    y[at] -= best;
    weight[at] = Math.exp(y[at] / temperature);
  }
  state.temperature = temperature;
}

/** @param {Left} state */
function dropFar(state) {
  const { order, y, temperature } = state;
  if (y[/** @type {number} */ (order.at(-1))] / temperature < -FAR_BELOW)
    state.order = order.filter((at) => y[at] / temperature >= -FAR_BELOW);
}

/** What all tokens weigh. @param {Left} state */
function totalOf({ order, left, weight }) {
  let total = 0;
  for (const at of order) total += left[at] * weight[at];
  return total;
}

/** How many tokens there are. @param {Left} state */
function numOf({ order, left }) {
  let many = 0;
  for (const at of order) many += left[at];
  return many;
}

/** @param {string} name @param {Left} state @param {Step | null} before @returns {Step} */
function stepOf(name, state, before) {
  const p = new Float64Array(state.y.length);
  const left = new Float64Array(state.y.length);
  const total = totalOf(state);
  for (const at of state.order) {
    left[at] = state.left[at];
    p[at] = state.weight[at] / total;
  }
  let cut = 0;
  if (before) for (let at = 0; at < left.length; at += 1) cut += before.p[at] * (before.left[at] - left[at]);
  return { name, p, left, tokens: numOf(state), cut };
}

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
    let n = 0;
    for (const [b, long] of repeats) n = Math.max(n, Math.min(long, window - b, allowed + MOST_BEYOND_ALLOWED));
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

/** @param {Left} state @param {Record<string, any>} settings */
function temperatureOf(state, settings) {
  const { temperature, dynatemp_range: range, dynatemp_exponent: exponent } = settings;
  const { y } = state;
  const counted = { ...state, order: state.order.filter((at) => y[at] - y[state.order[0]] >= -FAR_BELOW) };
  const n = numOf(counted);
  if (!range || n === 1) return temperature;
  counted.y = y.slice();
  counted.weight = state.weight.slice();
  weigh(counted, 1);
  const share = Math.min(1, Math.max(0, entropyOf(counted) / Math.log(n)));
  const low = Math.max(0, temperature - range);
  return Math.max(LEAST_TEMPERATURE, low + (temperature + range - low) * share ** exponent);
}

/** In nats. @param {Left} state */
function entropyOf(state) {
  const { order, left, weight } = state;
  const total = totalOf(state);
  let entropy = 0;
  for (const at of order) {
    const p = weight[at] / total;
    if (p) entropy -= left[at] * p * Math.log(p);
  }
  return entropy;
}

/**
 * Keep of the items in `order` the first tokens whose weights add up to `share` of all.
 * @param {Left} state @param {number[]} order its items @param {number} share
 */
function shortestRun({ left, weight }, order, share) {
  let total = 0;
  for (const at of order) total += left[at] * weight[at];
  const wanted = share * total;
  const kept = new Set();
  let running = 0;
  for (const at of order) {
    if (left[at] > 1)
      left[at] = Math.min(left[at], Math.max(1, Math.ceil((wanted - running) / weight[at])));
    running += left[at] * weight[at];
    kept.add(at);
    if (running >= wanted) break;
  }
  return kept;
}

/**
 * What each stage cuts.
 * @type {Record<string, (state: Left, settings: Record<string, any>, strikes: boolean,
 *   ids: (at: number) => number) => void>}
 */
const CUTS = {
  top_n_sigma(state, settings) {
    const { order, left, y } = state;
    const n = numOf(state);
    let mean = 0;
    for (const at of order) mean += (left[at] * y[at]) / n;
    let variance = 0;
    for (const at of order) variance += (left[at] * (y[at] - mean) ** 2) / n;
    const least = y[order[0]] - settings.top_n_sigma * Math.sqrt(variance);
    state.order = order.filter((at) => y[at] >= least);
  },
  top_k(state, settings) {
    const { left } = state;
    let room = settings.top_k;
    state.order = state.order.filter((at) => {
      const kept = Math.min(left[at], room);
      room -= kept;
      if (kept) left[at] = kept;
      return kept;
    });
  },
  top_p(state, settings) {
    const kept = shortestRun(state, state.order, settings.top_p);
    state.order = state.order.slice(0, kept.size);
  },
  min_p(state, settings) {
    const { order, weight } = state;
    const least = settings.min_p * weight[order[0]];
    state.order = order.filter((at) => weight[at] >= least);
  },
  typical_p(state, settings, _strikes, ids) {
    const { order, weight } = state;
    const entropy = entropyOf(state);
    const total = totalOf(state);
    const off = weight.map((one) => Math.abs(entropy + Math.log(one / total)));
    const byOff = order.slice().sort((a, b) => off[a] - off[b] || ids(a) - ids(b));
    const kept = shortestRun(state, byOff, settings.typical_p);
    state.order = order.filter((at) => kept.has(at));
  },
  xtc(state, settings, strikes) {
    if (!strikes) return;
    const { order, left, weight } = state;
    const least = settings.xtc_threshold * totalOf(state);
    const others = order.filter((at) => weight[at] < least);
    const likely = order.slice(0, order.length - others.length);
    const stays = likely.slice(-1);
    for (const at of stays) left[at] = 1;
    state.order = [...stays, ...others];
  },
  mirostat(state, settings) {
    const least = 2 ** (-2 * settings.mirostat_tau) * totalOf(state);
    state.order = state.order.filter((at, index) => !index || state.weight[at] >= least);
  },
};
