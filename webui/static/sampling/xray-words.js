// @ts-check
/**
 * What each stage of sampling does to the next token, in a sentence. Pure functions.
 * @import { Step } from "./sampler-chain.js"
 */

import { count, fixed, percent } from "../base/format.js";
import { t, tn } from "../base/language.js";
import { shareText } from "../text/token-text.js";
import { activeStages } from "./sampler-chain.js";

/** Stage -> its name, and the parameters that it has; of those of the page, in the order of the page. */
export const STAGES = {
  model: { name: t("The model alone"), parameters: [] },
  penalties: {
    name: t("Penalties"),
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
  bias: { name: t("Biases and bans"), parameters: ["min_new_tokens"] },
  top_n_sigma: { name: t("Top-n-sigma"), parameters: ["top_n_sigma"] },
  temperature: { name: t("Temperature"), parameters: ["temperature", "dynatemp_range", "dynatemp_exponent"] },
  top_k: { name: t("Top-k"), parameters: ["top_k"] },
  top_p: { name: t("Top-p"), parameters: ["top_p"] },
  min_p: { name: t("Min-p"), parameters: ["min_p"] },
  typical_p: { name: t("Typical"), parameters: ["typical_p"] },
  xtc: { name: "XTC", parameters: ["xtc_probability", "xtc_threshold"] },
  mirostat: { name: t("Mirostat"), parameters: ["mirostat", "mirostat_tau"] },
  all: { name: t("All together"), parameters: [] },
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
  if (tokens === all) return t("all {all} are left.", { all });
  return t("{tokens} of {all} left, {share} of the probability cut.", { tokens, all, share: shareText(cut) });
}

/** The probability of the likeliest. @param {Step} step */
const most = ({ p }) => p.reduce((best, one) => (one > best ? one : best), 0);

/** "from 12% to 8%", of the tokens that a stage touched. @param {Step} step @param {Step} before */
function moved({ p, touched = [] }, before) {
  const sum = (shares) => touched.reduce((all, at) => all + shares[at], 0);
  return { from: shareText(sum(before.p)), to: shareText(sum(p)) };
}

/** @type {Record<string, (settings: Record<string, any>, step: Step, before: Step) => string>} */
const SENTENCES = {
  model({ guidance_scale: scale = 1 }, step) {
    const entropy = step.p.reduce((sum, p, at) => (p ? sum - step.left[at] * p * Math.log(p) : sum), 0);
    const among = Math.exp(entropy);
    const values = { tokens: step.tokens, share: shareText(most(step)), among: shortly(among) };
    const sentence =
      among < 1.05
        ? t("Before any sampler, of {tokens} tokens: the likeliest has {share}; the model is sure.", values)
        : t(
            "Before any sampler, of {tokens} tokens: the likeliest has {share}; the model is as unsure as among {among} equally likely ones.",
            values,
          );
    return scale === 1 ? sentence : t("After guidance by {scale}, {sentence}", { scale, sentence });
  },
  penalties(_, step, before) {
    const { touched = [] } = step;
    if (!touched.length) return t("No token that they are about occurred before.");
    return tn(
      "Change {count} token that occurred before: from {from} to {to} of the probability.",
      "Change {count} tokens that occurred before: from {from} to {to} of the probability.",
      touched.length,
      moved(step, before),
    );
  },
  dry({ dry_allowed_length: long }, step, before) {
    const { touched = [] } = step;
    if (!touched.length) return t("No token would go on with a repeated sequence of {long} or more.", { long });
    return tn(
      "Lowers {count} token that goes on with a sequence that was there before: from {from} to {to} of the probability.",
      "Lowers {count} tokens that go on with a sequence that was there before: from {from} to {to} of the probability.",
      touched.length,
      moved(step, before),
    );
  },
  bias(_, step, before) {
    const { touched = [] } = step;
    return tn(
      "Biases, bans and the fewest tokens change {count} token: from {from} to {to} of the probability.",
      "Biases, bans and the fewest tokens change {count} tokens: from {from} to {to} of the probability.",
      touched.length,
      moved(step, before),
    );
  },
  temperature({ dynatemp_range: range }, step, before) {
    const { temperature = 0 } = step;
    if (!temperature) return t("At 0 the likeliest token is taken; what would follow does not count.");
    const of = range ? t("{temperature} here, by how unsure the model is", { temperature: fixed(temperature, 2) }) : fixed(temperature, 2);
    const what = temperature > 1 ? t("evens the shares out") : temperature < 1 ? t("favours the likely") : t("changes nothing");
    const goes = t("the likeliest goes from {from} to {to}.", {
      from: shareText(most(before)),
      to: shareText(most(step)),
    });
    return `${of}: ${what}; ${goes}`;
  },
  top_n_sigma: ({ top_n_sigma: n }) => t("Keeps logits at most {n} standard deviations below the largest", { n }),
  top_k: ({ top_k: k }) => tn("Keeps the likeliest token", "Keeps the {count} likeliest tokens", k),
  top_p: ({ top_p: p }) => t("Keeps the likeliest tokens that add up to {share}", { share: exact(p) }),
  min_p: ({ min_p: p }) => t("Keeps tokens at least {share} as likely as the likeliest", { share: exact(p) }),
  typical_p: ({ typical_p: p }) => t("Keeps tokens about as surprising as expected that add up to {share}", { share: exact(p) }),
  xtc: ({ xtc_probability: often, xtc_threshold: least }) =>
    t("In {often} of all cases keeps, of the tokens with at least {least}, only the least likely", {
      often: exact(often),
      least: exact(least),
    }),
  mirostat: ({ mirostat_tau: tau }) =>
    t("Keeps tokens of at most {bits} bits of surprise, as at the beginning of a reply", { bits: 2 * tau }),
  all({ strikes, ...settings }, step, model) {
    const own = model.p.reduce((sum, p, at) => sum + p * Math.min(model.left[at], step.left[at]), 0);
    if (!step.tokens) return t("No token is left: all are banned.");
    const drawn = tn(
      "{count} token is left; by the model alone it has {own}.",
      "One of {count} tokens is drawn, the likeliest in {share} of all cases; by the model alone they have {own}.",
      step.tokens,
      { share: shareText(most(step)), own: shareText(own) },
    );
    if (!activeStages(settings).includes("xtc")) return drawn;
    return `${drawn} ${strikes ? t("So it is if XTC strikes.") : t("So it is if XTC does not strike.")}`;
  },
};

/** A setting as a share, unrounded. @param {number} share */
const exact = (share) => percent(share, 0, 1);
/** @param {number} among */
const shortly = (among) => (among < 10 ? fixed(among, 1) : count(among));
