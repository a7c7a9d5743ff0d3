// @ts-check
/**
 * For those who hear the page: what is being written, by sentences and with who says it, and keys that go
 * from message to message, to other speakers and versions, and tell how things stand. Loaded when somebody
 * has chosen so in the Appearance dialog.
 * @import { Live, Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { announce } from "../base/announce.js";
import { byId } from "../base/dom.js";
import { listed } from "../base/format.js";
import { isComposing } from "../base/input.js";
import { t, tn, together } from "../base/language.js";
import { recall } from "../base/storage.js";
import { menuIsOpen } from "../overlays/menu.js";
import { botOf, botsInRoom, nameOf } from "../session/store.js";
import { messageOf, versions } from "../session/tree.js";
import { audienceText } from "../session/whisper.js";
import { finishedSentences } from "../text/sentences.js";

/** So often it is looked whether a sentence is finished. */
const LOOK_MS = 250;

/** @typedef {{live: Live, to: number, named: boolean, thinks: boolean}} Heard `to`: told up to there */

/** @type {(() => void) | null} */
let end = null;

/**
 * Begin, or end, as it is chosen now.
 * @param {Store} store @param {Room} room
 * @param {{reveal: (id: string) => void, toEnd: () => void, focus: (id: string) => void}} transcript
 */
export function readAloud(store, room, transcript) {
  const chosen = recall("reader");
  end?.();
  end = null;
  document.documentElement.dataset.reader = chosen;
  if (!chosen) return;
  const keys = listenToKeys(store, room, transcript);
  const stop = tellReplies(store, chosen === "sentences");
  end = () => {
    keys();
    stop();
  };
}

/** @param {Store} store @param {boolean} bySentences else each reply when it is finished */
function tellReplies(store, bySentences) {
  /** @type {Map<string, Heard>} */
  const heard = new Map();
  let timer = 0;
  let isOver = false;

  /** @param {Heard} one @param {string} text @param {boolean} ended */
  function tell(one, text, ended) {
    const { said, to } = finishedSentences(text, one.to, ended);
    one.to = to;
    if (!said) return;
    announce(one.named ? said : t("{name}: {text}", { name: one.live.name, text: said }));
    one.named = true;
  }

  function look() {
    const { live, session } = store.state;
    if (isOver) return;
    for (const one of live.values()) {
      if (!one.ready || one.sessionId !== session?.id) continue;
      let known = heard.get(one.messageId);
      if (!known) {
        known = { live: one, to: one.base.length, named: false, thinks: false };
        heard.set(one.messageId, known);
        if (!bySentences) announce(t("{name} is writing.", { name: one.name }));
      }
      if (one.think && !one.text && !known.thinks) {
        known.thinks = true;
        announce(t("{name} is thinking.", { name: one.name }));
      }
      if (bySentences) tell(known, one.base + one.text, false);
    }
    for (const [id, known] of heard) {
      if (live.has(id)) continue;
      heard.delete(id);
      const message = session && known.live.sessionId === session.id && messageOf(session, id);
      if (message) tell(known, message.text, true);
      if (message && bySentences) announce(t("{name} is done.", { name: known.live.name }));
    }
    clearTimeout(timer);
    if (live.size) timer = window.setTimeout(look, LOOK_MS);
  }

  store.on(["live", "session"], look);
  look();
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}

/** @param {Store} store @param {Room} room @param {Parameters<typeof readAloud>[2]} transcript */
function listenToKeys(store, room, transcript) {
  /** The message that was gone to last. */
  let visited = "";

  /** Where one is: at a message, or behind the last. @param {Message[]} path */
  function place(path) {
    const focused = document.activeElement?.closest?.(".message")?.getAttribute("data-id");
    const at = path.findIndex((message) => message.id === focused);
    return at < 0 ? path.length : at;
  }

  /** @param {Message[]} path @param {number} at */
  async function go(path, at) {
    const message = path[at];
    if (at >= path.length) {
      byId("text").focus();
      return;
    }
    if (!message) {
      announce(t("This is the first message."));
      return;
    }
    if (message.far && !(await room.whole())) return;
    visited = message.id;
    if (at === path.length - 1) transcript.toEnd();
    else transcript.reveal(message.id);
    transcript.focus(message.id);
    const { live, session } = store.state;
    const running = live.get(message.id);
    const text = running ? running.base + running.text : message.text;
    const all = session ? versions(session, live, message) : [];
    announce(
      together(
        finishedSentences(text, 0, true).said,
        t("Message {number} of {count}.", { number: at + 1, count: path.length }),
        all.length > 1 && t("Version {number} of {count}.", { number: all.indexOf(message.id) + 1, count: all.length }),
      ),
    );
  }

  /** @param {number} by */
  function step(by) {
    const path = room.path();
    go(path, place(path) + by);
  }

  /** To what somebody else said. @param {number} by */
  function speaker(by) {
    const path = room.path();
    let at = place(path);
    const { author } = path[at] || {};
    do at += by;
    while (path[at] && path[at].author === author);
    go(path, Math.max(-1, at));
  }

  /** @param {number} by */
  async function branch(by) {
    const { session, live } = store.state;
    const path = room.path();
    const several = (message) => session && versions(session, live, message).length > 1;
    const here = path[place(path)] || path.find((message) => message.id === visited);
    const message = here && several(here) ? here : path.findLast(several);
    const all = session && message ? versions(session, live, message) : [];
    const other = message && all[all.indexOf(message.id) + by];
    if (!other) announce(message ? t("There is no other version on that side.") : t("No message has other versions."));
    else if (await room.show(other)) {
      const now = room.path();
      go(
        now,
        now.findIndex((one) => one.id === other),
      );
    }
  }

  /** Who is here, who writes, how many messages there are, and what the context takes. */
  function state() {
    const { session, live, audience } = store.state;
    const path = room.path();
    const muted = (session?.bots || []).filter((entry) => entry.muted).map(({ id }) => botOf(store.state, id)?.name || "");
    const names = botsInRoom(store.state).map((bot) => bot.name);
    const writing = [...live.values()].map((one) => one.name).filter(Boolean);
    const at = place(path);
    announce(
      together(
        names.length ? t("Here: {names}.", { names: listed(names) }) : t("Nobody is in the room."),
        muted.length > 0 && t("Muted: {names}.", { names: listed(muted) }),
        writing.length ? t("{name} is writing.", { name: listed(writing) }) : t("Nobody is writing."),
        tn("One message.", "{count} messages.", path.length),
        path[at] && t("You are at number {number}, of {name}.", { number: at + 1, name: nameOf(store.state, path[at]) }),
        !byId("status-line").hidden && t("In memory: {used}.", { used: byId("status-line").querySelector(".used").textContent }),
        audience && `${audienceText(store.state, { author: "user", for: audience })}.`,
      ),
    );
  }

  /** By where the key lies, for Option types other letters on a Mac. @type {Record<string, () => any>} */
  const table = {
    KeyN: () => step(1),
    KeyP: () => step(-1),
    "shift+KeyN": () => speaker(1),
    "shift+KeyP": () => speaker(-1),
    Period: () => branch(1),
    Comma: () => branch(-1),
    KeyR: state,
  };

  /** @param {KeyboardEvent} event */
  function pressed(event) {
    if (!event.altKey || event.ctrlKey || event.metaKey || event.getModifierState("AltGraph")) return;
    if (isComposing(event) || document.querySelector("dialog[open]") || menuIsOpen()) return;
    const run = table[`${event.shiftKey ? "shift+" : ""}${event.code}`];
    if (!run) return;
    event.preventDefault();
    run();
  }

  document.addEventListener("keydown", pressed);
  return () => document.removeEventListener("keydown", pressed);
}
