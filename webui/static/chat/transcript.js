// @ts-check
/**
 * The chat: the shown path of the session as message elements, of a long one a part. While a reply is
 * written, only its own element is touched.
 * @import { Live, Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { byId, h } from "../base/dom.js";
import { t, tn } from "../base/language.js";
import { botOf, nameOf, pictureOf } from "../session/store.js";
import { audienceText, namesOf } from "../session/whisper.js";
import { OUTGOING, arrivals, versions, voteOn } from "../session/tree.js";
import { MessageView } from "./message.js";
import { Pin } from "./scroll.js";
import { ShownPart } from "./shown-part.js";

/** Until the messages around one have been laid out; till then their heights are guessed. */
const SETTLING_FRAMES = 6;

export const USER_COLOR = "#6d6659";

/** What stands above the first message that a model still sees. @param {number} out those that it does not */
export const memoryText = (out) =>
  tn(
    "The model's memory begins here · one earlier message is kept, not read",
    "The model's memory begins here · {count} earlier messages are kept, not read",
    out,
  );

/**
 * @param {Store} store
 * @param {import("../session/room.js").Room} room
 * @param {import("./message.js").Handlers} handlers
 */
export function createTranscript(store, room, handlers) {
  const scroller = byId("transcript");
  const list = byId("messages");
  const jump = byId("jump");
  /** @type {Map<string, MessageView>} */
  const views = new Map();
  /** @type {Message[]} */
  let path = [];
  let shownSession = "";
  let wasEditing = false;
  let wasPinned = true;
  const pin = new Pin(scroller, list, (pinned) => {
    jump.hidden = pinned;
  });

  /** @param {Message} message @param {number} index */
  function viewOf(message, index) {
    const { state } = store;
    const session = /** @type {any} */ (state.session);
    const live = state.live.get(message.id) || null;
    const isUser = message.author === "user";
    const bot = isUser ? null : botOf(state, message.author);
    return {
      sessionId: session.id,
      message,
      live: live?.ready ? live : null,
      isUser,
      name: nameOf(state, message),
      color: isUser ? USER_COLOR : bot?.color || USER_COLOR,
      picture: pictureOf(bot),
      audience: audienceText(state, message),
      isOutgoing: message.id === OUTGOING,
      canAnswer: Boolean(bot && !bot.engine),
      versions: versions(session, state.live, message),
      vote: voteOn(session, message.id),
      isLast: index === path.length - 1,
      busy: state.live.size > 0,
      away: state.away,
      editing: state.editing === message.id && !message.far,
    };
  }

  /** Bring the elements in line with path[first..end]. */
  function draw() {
    const { first, end } = part;
    const wanted = path.slice(first, end);
    const ids = new Set(wanted.map((message) => message.id));
    for (const [id, view] of views) {
      if (!ids.has(id)) {
        view.element.remove();
        views.delete(id);
      }
    }
    let place = list.firstElementChild;
    if (wanted.some(({ far }) => far)) room.moreTexts();
    wanted.forEach((message, at) => {
      const data = viewOf(message, first + at);
      let view = views.get(message.id);
      if (view) view.update(data);
      else views.set(message.id, (view = new MessageView(data, handlers)));
      while (place && !place.matches(".message")) place = place.nextElementSibling;
      if (view.element === place) place = place.nextElementSibling;
      else list.insertBefore(view.element, place);
    });
    drawLines();
  }

  /** Where the memory begins, where a summary stands for what is above, and where bots came in. */
  function drawLines() {
    for (const line of list.querySelectorAll(".memory-line")) line.remove();
    const { context, session } = store.state;
    const line = (child) => h("p", { class: "memory-line" }, child);
    const link = (text, click) =>
      line(h("button", { type: "button", class: "text-button", text, on: { click } }));
    for (const { until, for: readers } of session?.summaries || []) {
      const whose = readers
        ? t("Summary of what is above, for {names}", { names: namesOf(store.state, readers) })
        : t("Summary of what is above");
      views.get(until)?.element.after(link(whose, () => handlers.summary(until, readers)));
    }
    for (const { id, last } of session ? arrivals(session, path) : [])
      views
        .get(last)
        ?.element.after(
          link(t("{name} came in here", { name: namesOf(store.state, [id]) }), () => handlers.knows(id)),
        );
    const at = path.findIndex((message) => message.id === context?.first_message);
    const out = context?.left_out || 0; // not all that stands above: some of it is for others
    if (out && at > 0) views.get(path[at].id)?.element.before(line(h("span", { text: memoryText(out) })));
  }

  /** Whether a message can be put on the page; else it is asked for. @param {number} index */
  const isThere = (index) => {
    if (path[index].far) room.moreTexts();
    return !path[index].far;
  };
  const part = new ShownPart(scroller, list, pin, draw, isThere);

  /** Bring the end of the chat on the page. */
  function toEnd() {
    if (!part.isAtEnd) {
      part.begin(path.length);
      draw();
      part.fill();
    }
    pin.hold();
  }

  function update() {
    const { session, editing } = store.state;
    if (editing && !wasEditing) wasPinned = pin.pinned;
    if (editing) pin.release();
    const key = session ? session.id || "new" : "";
    path = room.path();
    const wasAtEnd = part.isAtEnd;
    if (key !== shownSession) {
      shownSession = key;
      part.begin(path.length);
      pin.pinned = true;
      jump.hidden = true;
    } else part.resize(path.length);
    draw();
    part.fill();
    if (wasAtEnd && pin.pinned) part.trim();
    if (!path.length) scroller.scrollTop = 0;
    if (wasEditing && !editing && wasPinned) pin.hold();
    wasEditing = Boolean(editing);
    pin.follow();
  }

  /**
   * Have a message, whose text is there, in the middle of what is seen.
   * @param {string} id @param {() => void} [settled] called after it
   */
  function reveal(id, settled = () => {}) {
    const index = path.findIndex((message) => message.id === id);
    if (index < 0) return;
    part.showAround(index);
    pin.release();
    const { element } = /** @type {MessageView} */ (views.get(id));
    const settle = (frames) => {
      element.scrollIntoView({ block: "center" });
      settled();
      if (frames) requestAnimationFrame(() => settle(frames - 1));
    };
    settle(SETTLING_FRAMES);
  }

  jump.addEventListener("click", toEnd);
  store.on(["session", "live", "viewLeaf", "context", "bots", "editing", "outgoing", "away"], update);
  store.on(["texts"], () => {
    update();
    part.extend();
  });

  return {
    /**
     * Show the new text of running replies. The pin follows before the frame is laid out: scrolling after
     * that takes work twice.
     * @param {Live[]} lives
     */
    flush(lives) {
      for (const { messageId } of lives) {
        const view = views.get(messageId);
        if (view?.view.live) view.showLive();
      }
      pin.follow();
    },
    toEnd,
    reveal,
    async toBeginning() {
      if ((await room.whole()) && path.length) reveal(path[0].id);
    },
    /** @param {string} id */
    focus(id) {
      const view = views.get(id);
      view?.element.scrollIntoView({ block: "nearest" });
      view?.element.focus();
    },
  };
}
