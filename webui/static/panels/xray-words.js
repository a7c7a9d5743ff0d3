// @ts-check
/**
 * What each stage of sampling does to the next token, in a sentence. Pure functions.
 * @import { Step } from "./sampler-chain.js"
 */

import { count, plural } from "../base/format.js";
import { shareText } from "../chat/token-text.js";
import { activeStages } from "./sampler-chain.js";

/** Stage -> its name, and the parameters that it has; of those of the page, in the order of the page. */
export const STAGES = {
  model: { name: "The model alone", parameters: [] },
  penalties: {
    name: "Penalties",
    parameters: [
      "repetition_penalty",
      "repetition_range",
      "repetition_decay",
      "presence_penalty",
      "frequency_penalty",
    ],
  },
  dry: {
    name: "DRY",
    parameters: ["dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n"],
  },
  bias: { name: "Biases and bans", parameters: ["min_new_tokens"] },
  top_n_sigma: { name: "Top-n-sigma", parameters: ["top_n_sigma"] },
  temperature: { name: "Temperature", parameters: ["temperature", "dynatemp_range", "dynatemp_exponent"] },
  top_k: { name: "Top-k", parameters: ["top_k"] },
  top_p: { name: "Top-p", parameters: ["top_p"] },
  min_p: { name: "Min-p", parameters: ["min_p"] },
  typical_p: { name: "Typical", parameters: ["typical_p"] },
  xtc: { name: "XTC", parameters: ["xtc_probability", "xtc_threshold"] },
  mirostat: { name: "Mirostat", parameters: ["mirostat", "mirostat_tau"] },
  all: { name: "All together", parameters: [] },
};

/**
 * @param {Step} step @param {Step} before what it works on
 * @param {Record<string, any>} settings and `strikes`, whether XTC does
 */
export function sentence(step, before, settings) {
  const what = SENTENCES[step.name](settings, step, before);
  return step.name in CUTTING ? `${what}: ${left(step, before)}` : what;
}

/** Those whose sentence goes on with what is left. */
const CUTTING = { top_n_sigma: 1, top_k: 1, top_p: 1, min_p: 1, typical_p: 1, xtc: 1, mirostat: 1 };

/** @param {Step} step @param {Step} before */
function left({ tokens, cut }, { tokens: all }) {
  if (tokens === all) return `all ${count(all)} are left.`;
  return `${count(tokens)} of ${count(all)} left, ${shareText(cut)} of the probability cut.`;
}

/** The probability of the likeliest. @param {Step} step */
const most = ({ p }) => p.reduce((best, one) => (one > best ? one : best), 0);

/** "from 12% to 8%", of the tokens that a stage touched. @param {Step} step @param {Step} before */
function moved({ p, touched = [] }, before) {
  const sum = (shares) => touched.reduce((all, at) => all + shares[at], 0);
  return `from ${shareText(sum(before.p))} to ${shareText(sum(p))} of the probability`;
}

/** @type {Record<string, (settings: Record<string, any>, step: Step, before: Step) => string>} */
const SENTENCES = {
  model({ guidance_scale: scale = 1 }, step) {
    const entropy = step.p.reduce((sum, p, at) => (p ? sum - step.left[at] * p * Math.log(p) : sum), 0);
    const among = Math.exp(entropy);
    const unsure = among < 1.05 ? "it is sure" : `as unsure as among ${shortly(among)} equally likely ones`;
    const when = scale === 1 ? "Before any sampler" : `After guidance by ${plain(scale)}, before any sampler`;
    return `${when}, of ${count(step.tokens)} tokens: the likeliest has ${shareText(most(step))}; ${unsure}.`;
  },
  penalties(_, step, before) {
    const { touched = [] } = step;
    if (!touched.length) return "No token that they are about occurred before.";
    return `Change ${plural(touched.length, "token")} that occurred before: ${moved(step, before)}.`;
  },
  dry({ dry_allowed_length: long }, step, before) {
    const { touched = [] } = step;
    if (!touched.length) return `No token would go on with a repeated sequence of ${long} or more.`;
    const what = touched.length === 1 ? "1 token that goes" : `${count(touched.length)} tokens that go`;
    return `Lowers ${what} on with a sequence that was there before: ${moved(step, before)}.`;
  },
  bias(_, step, before) {
    const { touched = [] } = step;
    return `Biases, bans and the fewest tokens change ${plural(touched.length, "token")}: ${moved(step, before)}.`;
  },
  temperature({ dynatemp_range: range }, step, before) {
    const { temperature = 0 } = step;
    if (!temperature) return "At 0 the likeliest token is taken; what would follow does not count.";
    const of = range ? `${temperature.toFixed(2)} here, by how unsure the model is` : temperature.toFixed(2);
    const what = temperature > 1 ? "evens the shares out" : temperature < 1 ? "favours the likely" : "changes nothing";
    return `${of}: ${what}; the likeliest goes from ${shareText(most(before))} to ${shareText(most(step))}.`;
  },
  top_n_sigma: ({ top_n_sigma: n }) => `Keeps logits at most ${plain(n)} standard deviations below the largest`,
  top_k: ({ top_k: k }) => (k === 1 ? "Keeps the likeliest token" : `Keeps the ${count(k)} likeliest tokens`),
  top_p: ({ top_p: p }) => `Keeps the likeliest tokens that add up to ${exact(p)}`,
  min_p: ({ min_p: p }) => `Keeps tokens at least ${exact(p)} as likely as the likeliest`,
  typical_p: ({ typical_p: p }) => `Keeps tokens about as surprising as expected that add up to ${exact(p)}`,
  xtc: ({ xtc_probability: often, xtc_threshold: least }) =>
    `In ${exact(often)} of all cases keeps, of the tokens with at least ${exact(least)}, only the least likely`,
  mirostat: ({ mirostat_tau: tau }) =>
    `Keeps tokens of at most ${plain(2 * tau)} bits of surprise, as at the beginning of a reply`,
  all({ strikes, ...settings }, step, model) {
    const own = model.p.reduce((sum, p, at) => sum + p * Math.min(model.left[at], step.left[at]), 0);
    if (!step.tokens) return "No token is left: all are banned.";
    const which = strikes ? "strikes" : "does not strike";
    const here = activeStages(settings).includes("xtc") ? ` So it is if XTC ${which}.` : "";
    if (step.tokens === 1) return `1 token is left; by the model alone it has ${shareText(own)}.${here}`;
    const often = `the likeliest in ${shareText(most(step))} of all cases`;
    const what = `One of ${count(step.tokens)} tokens is drawn, ${often}`;
    return `${what}; by the model alone they have ${shareText(own)}.${here}`;
  },
};

/** @param {number} value */
const plain = (value) => String(Math.round(value * 100) / 100);
/** A setting as a share, unrounded. @param {number} share */
const exact = (share) => `${Math.round(share * 1000) / 10}%`;
/** @param {number} among */
const shortly = (among) => (among < 10 ? among.toFixed(1) : count(among));
