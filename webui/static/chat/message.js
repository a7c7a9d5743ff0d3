// @ts-check
/**
 * One message of the transcript: who, when, the text, what can be done with it. Built once and then updated
 * in place. Knows nothing of the server; what is clicked goes to the handlers.
 * @import { Live, Message } from "../types.js"
 */

import { announceParagraph } from "../base/announce.js";
import { h, icon, iconButton, monogram, setText } from "../base/dom.js";
import { fullTime, messageTime, numbers, speed, tokens as tokensText, wholeSeconds } from "../base/format.js";
import { t } from "../base/language.js";
import { copyText } from "../text/code.js";
import { MarkdownView } from "../text/markdown.js";
import { editor } from "./edit.js";

/**
 * @typedef {{sessionId: string | null, message: Message, live: Live | null, isUser: boolean, name: string,
 *   color: string, picture: string, versions: string[], isLast: boolean, busy: boolean, away: boolean,
 *   editing: boolean, audience: string, vote: string,
 *   isOutgoing: boolean, canAnswer: boolean}} View
 *
 * @typedef {{show: (id: string) => void, edit: (id: string | null) => void,
 *   save: (message: Message, text: string) => Promise<boolean>,
 *   branch: (message: Message, text: string) => Promise<boolean>, proceed: (message: Message) => void,
 *   answerNow: (live: Live) => void,
 *   again: (message: Message) => void, tokens: (message: Message, name: string) => void,
 *   menu: (message: Message, anchor: HTMLElement) => void,
 *   summary: (until: string, readers?: string[]) => void,
 *   knows: (bot: string) => void}} Handlers
 */

const BADGES = {
  error: t("The reply broke off"),
  interrupted: t("Interrupted when the server stopped"),
  context: t("The context is full"),
  length: t("Cut at the most tokens of a reply"),
  cancelled: t("Stopped"),
};

const SHORTENED = t("The message before is too long for this model: it saw the beginning and the end");

export class MessageView {
  /** @param {View} view @param {Handlers} handlers */
  constructor(view, handlers) {
    /** @type {HTMLElement | null} */
    this.part_edit = null;
    this.handlers = handlers;
    this.view = view;
    this.signature = "";
    this.name = h("span", { class: "name" });
    this.time = h("time", { class: "quiet" });
    this.note = h("span", { class: "quiet note" });
    this.body = h("div", { class: "md" });
    this.text = new MarkdownView(this.body, announceParagraph);
    this.head = h("header", { class: "message-head" }, this.name, this.time, this.note);
    this.main = h("div", { class: "message-main" }, this.head, this.body);
    this.element = h("article", { class: "message", tabindex: "-1", data: { id: view.message.id } }, this.main);
    this.update(view);
  }

  /** @param {View} view */
  update(view) {
    const wasLive = Boolean(this.view.live);
    this.view = view;
    const { message, live, isUser, editing } = view;
    const signature = JSON.stringify([
      message.text.length,
      message.thinking?.length,
      message.name,
      view.name,
      view.color,
      view.picture,
      view.versions,
      view.isLast,
      view.busy,
      editing,
      message.finish_reason,
      message.error,
      message.pinned,
      view.audience,
      view.vote,
      Boolean(live),
      message.far,
    ]);
    if (live) this.showLive();
    else if (!editing) {
      if (wasLive) this.text.grow(message.text);
      this.text.show(message.text);
    }
    if (signature === this.signature) return;
    this.signature = signature;
    this.element.className = `message ${isUser ? "from-user" : "from-bot"}${view.isLast ? " is-last" : ""}`;
    const said = [view.name, messageTime(message.created), view.audience].filter(Boolean).join(", ");
    this.element.setAttribute("aria-label", said);
    this.#part("monogram", monogram(view.name, view.color, "", view.picture), this.element);
    this.name.textContent = view.name;
    this.time.textContent = live ? "" : messageTime(message.created);
    this.time.dateTime = new Date(message.created * 1000).toISOString();
    this.time.title = [fullTime(message.created), numbers(message)].filter(Boolean).join("\n");
    if (!live) {
      const vote = { won: t("chosen"), lost: t("not chosen"), open: t("side by side") }[view.vote];
      const note = view.isOutgoing ? t("sending") : message.far ? t("Loading…") : message.pinned ? t("pinned") : "";
      this.note.textContent = [note, vote].filter(Boolean).join(" · ");
      this.noted = null;
      this.body.classList.remove("writing");
      this.#part("answer", null, this.main);
      this.#thinking(message.thinking || "", thoughtLabel(thoughtSeconds(message), message.thinking_tokens));
    }
    this.body.hidden = editing || (!live && !message.text);
    const open = () => this.part_edit || editor(() => this.view, this.handlers);
    this.#part("edit", editing ? open() : null, this.main);
    this.#part("whisper", view.audience ? whisperLine(view.audience) : null, this.main);
    this.#part("badge", live || message.far ? null : badge(message), this.main);
    const several = view.versions.length > 1 && !view.isOutgoing;
    this.#part("versions", several ? versionArrows(message.id, view.versions, this.handlers) : null, this.head);
    const cannot = live || editing || view.isOutgoing || message.far;
    this.#part("actions", cannot ? null : actions(view, this.handlers), this.main);
  }

  /** Put the new tail of a reply on the page; this is all that runs while it is written. */
  showLive() {
    const live = /** @type {Live} */ (this.view.live);
    const begun = Boolean(live.text || live.think);
    const noted = [this.view.away, live.stopping, live.held, begun, live.progress, live.stats];
    if (noted.some((one, at) => one !== this.noted?.[at]))
      setText(this.note, this.view.away ? t("waiting for the server") : liveNote(live));
    this.noted = noted;
    const { think, thinkSeconds, thinkTokens, stats } = live;
    const thinks = think !== "" && !live.text;
    const label = thinks ? withTokens(t("Thinking…"), stats?.new_tokens) : thoughtLabel(thinkSeconds, thinkTokens);
    if (think) this.#thinking(think, label);
    if (!thinks) this.#part("answer", null, this.main);
    else if (this.view.canAnswer && !this.part_answer)
      this.#part("answer", answerButton(live, this.handlers), this.main);
    this.body.classList.add("writing");
    this.text.grow(live.base + live.text);
  }

  /**
   * The folded thoughts; their text is only on the page while they are open.
   * @param {string} text @param {string} label
   */
  #thinking(text, label) {
    if (!text) {
      this.thoughts?.remove();
      this.thoughts = null;
      return;
    }
    if (!this.thoughts) {
      const inner = h("div", { class: "thoughts", dir: "auto" });
      const details = h("details", { class: "think" }, h("summary"), inner);
      details.addEventListener("toggle", () => {
        inner.textContent = details.open ? this.thoughtText : "";
      });
      this.thoughts = details;
      this.body.before(details);
    }
    this.thoughtText = text;
    setText(this.thoughts.firstChild, label);
    if (this.thoughts.open) this.thoughts.lastChild.textContent = text;
  }

  /**
   * Put a part in, in place of the one of the same kind.
   * @param {string} kind @param {HTMLElement | null} element @param {HTMLElement} parent
   */
  #part(kind, element, parent) {
    const old = this[`part_${kind}`];
    if (old === element) return;
    if (old && element) old.replaceWith(element);
    else if (old) old.remove();
    else if (element && kind === "monogram") parent.prepend(element);
    else if (element && (kind === "badge" || kind === "edit")) this.body.after(element);
    else if (element && kind === "answer") this.body.before(element);
    else if (element && kind === "whisper") this.head.after(element);
    else if (element) parent.append(element);
    this[`part_${kind}`] = element;
  }
}

/**
 * Of an old message that does not tell, its share of the text is its share of the time.
 * @param {Message} message
 */
function thoughtSeconds(message) {
  if (message.thinking_seconds) return message.thinking_seconds;
  const thinking = (message.thinking || "").length;
  return thinking ? ((message.decode_seconds || 0) * thinking) / (thinking + message.text.length) : 0;
}

/** A thought's head. @param {string} text @param {number} [tokens] where they were counted */
const withTokens = (text, tokens) => (tokens ? `${text} · ${tokensText(tokens)}` : text);

/** @param {number} seconds @param {number} [tokens] */
const thoughtLabel = (seconds, tokens) =>
  seconds ? withTokens(t("Thought for {time}", { time: wholeSeconds(seconds) }), tokens) : t("Thoughts");

/** @param {Live} live @param {Handlers} handlers */
function answerButton(live, handlers) {
  const button = h("button", {
    type: "button",
    class: "button answer-now",
    text: t("Answer now"),
    on: {
      click() {
        button.disabled = true;
        handlers.answerNow(live);
      },
    },
  });
  return button;
}

/** @param {Live} live */
function liveNote(live) {
  const { progress, stats } = live;
  if (live.stopping) return t("stopping");
  if (live.held) return t("waiting while you write");
  if (!live.text && !live.think) {
    if (progress && progress.done < progress.total)
      return t("reading the prompt · {done} of {total} tokens", progress);
    return t("starting");
  }
  return stats?.tokens_per_second ? `${t("writing")} · ${speed(stats.tokens_per_second)}` : t("writing");
}

/** @param {Message} message */
function badge(message) {
  const reason = message.finish_reason || "";
  const serious = reason === "error" || reason === "interrupted";
  const ended = reason in BADGES && (message.error ? `${BADGES[reason]}: ${message.error}` : BADGES[reason]);
  const empty = !message.text && !ended && t("Said nothing");
  const text = [message.shortened && SHORTENED, ended, empty].filter(Boolean).join(" · ");
  if (!text) return null;
  return h(
    "p",
    { class: `badge ${serious ? "serious" : ""}` },
    serious && icon("triangle-alert"),
    h("span", { text }),
  );
}

/** @param {string} text */
const whisperLine = (text) => h("p", { class: "whispered" }, icon("lock"), h("span", { text }));

/** @param {View} view @param {Handlers} handlers */
function actions({ message, isUser, isLast, busy, name }, handlers) {
  const row = h("div", { class: "actions", role: "group", "aria-label": t("Actions") });
  const button = (text, onClick, extra = {}) =>
    row.append(h("button", { type: "button", class: "text-button", text, on: { click: onClick }, ...extra }));
  if (!isUser)
    button(t("Regenerate"), () => handlers.again(message), { disabled: busy, class: "text-button wide-only" });
  button(t("Edit"), () => handlers.edit(message.id), { disabled: busy });
  button(t("Copy"), (event) => copyText(message.text, event.currentTarget));
  if (!isUser && isLast) button(t("Continue"), () => handlers.proceed(message), { disabled: busy });
  if (!isUser && message.text)
    button(t("Tokens"), () => handlers.tokens(message, name), { disabled: busy, class: "text-button wide-only" });
  row.append(
    iconButton("ellipsis", t("More"), (event) => handlers.menu(message, /** @type {any} */ (event.currentTarget)), {
      "aria-haspopup": "menu",
    }),
  );
  return row;
}

/** @param {string} id @param {string[]} versions @param {Handlers} handlers */
function versionArrows(id, versions, handlers) {
  const at = versions.indexOf(id);
  return h(
    "span",
    { class: "versions" },
    iconButton("chevron-left", t("Previous version"), () => handlers.show(versions[at - 1]), { disabled: at === 0 }),
    h("span", { class: "tabular", text: t("{number} of {all}", { number: at + 1, all: versions.length }) }),
    iconButton("chevron-right", t("Next version"), () => handlers.show(versions[at + 1]), {
      disabled: at === versions.length - 1,
    }),
  );
}
