// @ts-check
/**
 * The X-ray of the next token: what sampling leaves of what the model finds likely, with the sliders that
 * change it. The model is asked once; whatever a slider does is computed in the page.
 * @import { Message, NextToken } from "../types.js"
 * @import { Room } from "../session/room.js"
 * @import { Store } from "../session/store.js"
 */

import { botChoice } from "../base/bot-choice.js";
import { h, setText } from "../base/dom.js";
import { t } from "../base/language.js";
import { ApiError, get } from "../server/api.js";
import { botOf, botsInRoom } from "../session/store.js";
import { openDialog } from "../overlays/dialogs.js";
import { samplingValues } from "./sampling-values.js";
import { createStages } from "./xray-stages.js";

const HELP =
  t("The model gives every token a share. The stages change and cut these one after the other; one token of what is left is drawn.");

/** What the open one does when the state of the page changes: a store forgets no listener. */
let changed = () => {};
/** @type {Store | null} */
let listening = null;

/**
 * @param {Store} store @param {Room} room
 * @param {{message: Message, index: number, name: string}} [place] a token of a reply; else the next one
 */
export function openXray(store, room, place) {
  const values = samplingValues(store, room);
  const specs = new Map((store.state.settings?.parameters || []).map((spec) => [spec.name, spec]));
  const speakers = botsInRoom(store.state);
  const choice = botChoice(speakers, t("Whose next token"), look);
  choice.choose(store.state.session?.next?.[0] || speakers[0]?.id || "");
  const bot = () => (place ? place.message.author : choice.chosen());
  const status = h("p", { class: "help", role: "status" });
  const outdated = h(
    "p",
    { class: "xray-outdated", role: "status", hidden: true },
    h("span", { text: t("The conversation has changed since.") }),
    h("button", { type: "button", class: "button small", text: t("Look again"), on: { click: look } }),
  );
  const stages = createStages(specs, values, bot);
  let abort = new AbortController();
  let frame = 0;
  /** @type {NextToken | null} */
  let next = null;
  /** What the answer depends on, as it was when it was asked for. @type {any[]} */
  let asked = [];
  /** @type {Set<number>} */
  let askedIds = new Set();

  const title = place ? t("What samplers do in {name}'s reply", place) : t("What samplers do to the next token");
  openDialog(title, [...(place ? [] : [choice.element]), status, outdated, stages.element], {
    wide: true,
    onClose() {
      abort.abort();
      cancelAnimationFrame(frame);
      changed = () => {};
    },
  });

  /** Tokens that have a bias or are banned. */
  function treatedIds() {
    const [biases, banned] = ["logit_bias", "banned_tokens"].map((name) => valueOf(name) || []);
    return [...Object.keys(biases).map(Number), ...banned];
  }

  /** @param {string} name */
  function valueOf(name) {
    const spec = specs.get(name);
    return spec && values.of(spec, bot());
  }

  /** All that the bot is sent, what guidance leads away from, and where DRY's sequences break. */
  function basis() {
    const { session, slot } = store.state;
    const { sampling: _, revision: __, ...own } = botOf(store.state, bot()) || /** @type {any} */ ({});
    const { id, system_prompt, user_name, note, summaries, lore } = session || /** @type {any} */ ({});
    const names = botsInRoom(store.state).map(({ name }) => name);
    const read = ["dry_sequence_breakers", "guidance_scale", "negative_prompt"].map(valueOf);
    return [
      ...[slot?.version, id, JSON.stringify([system_prompt, user_name, note, summaries, lore, own, names, read])],
      ...room.path().flatMap((message) => [message.id, message.text, message.pinned]),
    ];
  }

  /** Whether the answer is about something else by now, or lacks a token that is biased since. */
  function isOutdated() {
    const now = basis();
    if (!next) return false;
    const { tokens } = next;
    const isKnown = (id) => askedIds.has(id) || tokens.some((token) => token.id === id);
    return now.length !== asked.length || now.some((one, at) => one !== asked[at]) || !treatedIds().every(isKnown);
  }

  function draw() {
    stages.draw();
    outdated.hidden = !isOutdated();
  }

  async function look() {
    abort.abort();
    abort = new AbortController();
    const { signal } = abort;
    const id = store.state.session?.id;
    take(null, t("Asking the model…"));
    if (!id) return take(null, t("There is no conversation yet. Say something first."));
    if (!bot()) return take(null, t("Nobody is in the room. Add a bot first."));
    await room.flushPatch();
    asked = basis();
    askedIds = new Set(treatedIds());
    const path = place ? `messages/${place.message.id}/tokens/${place.index}` : `next-token?bot=${bot()}`;
    try {
      const found = await get(`/api/sessions/${id}/${path}`, signal);
      if (!signal.aborted) take(found, HELP);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      take(null, error.message);
      status.classList.add("wrong");
    }
  }

  /** @param {NextToken | null} found @param {string} text */
  function take(found, text) {
    next = found;
    status.classList.remove("wrong");
    setText(status, text);
    stages.take(found);
    outdated.hidden = true;
  }

  changed = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  };
  if (listening !== store) {
    listening = store;
    store.on(["session", "bots", "slot", "live", "settings"], () => changed());
  }
  look();
}
