// @ts-check
/**
 * The chat: the shown path of the session as message elements. Only a window of a long session is on the page; it
 * moves as the reader scrolls, so that a thousand messages cost no more than fifty. While a reply is written, only
 * its own element is touched.
 * @import { Live, Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { byId, h } from "../base/dom.js";
import { plural } from "../base/format.js";
import { botOf } from "../session/store.js";
import { OUTGOING, versions } from "../session/tree.js";
import { MessageView } from "./message.js";
import { Pin } from "./scroll.js";

/** Elements the window may hold; a screen of messages rarely takes 500. */
const MOST_ELEMENTS = 2400;
const CHUNK = 10;
/** So long may messages be added before the page is painted; a long one takes some milliseconds. */
const TURN_MS = 12;
/** How far beyond the screen messages are kept ready. */
const AHEAD_PX = 1200;
export const USER_COLOR = "#6d6659";

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
  let first = 0;
  let end = 0;
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
      name: isUser ? session.user_name || "You" : bot?.name || message.name || "Somebody",
      color: isUser ? USER_COLOR : bot?.color || USER_COLOR,
      isOutgoing: message.id === OUTGOING,
      versions: versions(session, state.live, message),
      isLast: index === path.length - 1,
      busy: state.live.size > 0,
      away: state.away,
      editing: state.editing === message.id,
    };
  }

  /** Bring the elements in line with path[first..end]. */
  function draw() {
    const wanted = path.slice(first, end);
    const ids = new Set(wanted.map((message) => message.id));
    for (const [id, view] of views) {
      if (!ids.has(id)) {
        view.element.remove();
        views.delete(id);
      }
    }
    let place = list.firstElementChild;
    wanted.forEach((message, at) => {
      const data = viewOf(message, first + at);
      let view = views.get(message.id);
      if (view) view.update(data);
      else views.set(message.id, (view = new MessageView(data, handlers)));
      while (place && !place.matches(".message")) place = place.nextElementSibling;
      if (view.element === place) place = place.nextElementSibling;
      else list.insertBefore(view.element, place);
    });
    drawMemoryLine();
  }

  function drawMemoryLine() {
    list.querySelector(".memory-line")?.remove();
    const start = store.state.context?.first_message;
    const at = start ? path.findIndex((message) => message.id === start) : 0;
    const view = start && at > 0 && views.get(start);
    if (!view) return;
    view.element.before(
      h(
        "p",
        { class: "memory-line" },
        h("span", {
          text: `The model's memory begins here · ${plural(at, "earlier message is", "earlier messages are")} kept, not read`,
        }),
      ),
    );
  }

  const elements = () => list.getElementsByTagName("*").length;

  let filling = 0;

  /** Add messages above: at once until the screen is full, then in turns a bit more, so that the last are painted first. */
  function fillUp(ahead = 0) {
    clearTimeout(filling);
    const until = performance.now() + TURN_MS;
    const lacks = (more) => first > 0 && list.scrollHeight < scroller.clientHeight + more;
    while (lacks(ahead) && performance.now() < until) {
      first -= 1;
      draw();
    }
    pin.follow();
    if (lacks(2 * AHEAD_PX)) filling = window.setTimeout(() => pin.pinned && fillUp(2 * AHEAD_PX));
  }

  /** The reader nears the first message on the page: put earlier ones before it and let go of the last ones. */
  function extendUp() {
    if (first === 0 || pin.pinned || scroller.scrollTop > AHEAD_PX / 2) return;
    const anchor = list.querySelector(".message");
    const top = anchor.getBoundingClientRect().top;
    first = Math.max(0, first - CHUNK);
    draw();
    while (elements() > MOST_ELEMENTS && end - first > 3 * CHUNK) {
      end -= CHUNK;
      draw();
    }
    scroller.scrollTop += anchor.getBoundingClientRect().top - top;
    pin.lastTop = scroller.scrollTop;
  }

  function extendDown() {
    if (end >= path.length || pin.distance() > AHEAD_PX / 2) return;
    end = Math.min(path.length, end + CHUNK);
    draw();
    if (elements() <= MOST_ELEMENTS || end - first <= 3 * CHUNK) return;
    const anchor = [...list.querySelectorAll(".message")].at(-1);
    const top = anchor.getBoundingClientRect().top;
    while (elements() > MOST_ELEMENTS && end - first > 3 * CHUNK) {
      first += CHUNK;
      draw();
    }
    scroller.scrollTop += anchor.getBoundingClientRect().top - top;
    pin.lastTop = scroller.scrollTop;
  }

  /** Bring the end of the chat on the page. */
  function toEnd() {
    if (end < path.length) {
      first = Math.max(0, path.length - 1);
      end = path.length;
      draw();
      fillUp();
    }
    pin.hold();
  }

  function update() {
    const { session, editing } = store.state;
    if (editing && !wasEditing) wasPinned = pin.pinned;
    if (editing) pin.release();
    const key = session ? session.id || "new" : "";
    const wasAtEnd = end >= path.length;
    path = room.path();
    if (key !== shownSession) {
      shownSession = key;
      first = Math.max(0, path.length - 1);
      end = path.length;
      pin.pinned = true;
      jump.hidden = true;
    } else if (wasAtEnd) end = path.length;
    end = Math.min(end, path.length);
    first = Math.min(first, Math.max(0, end - 1));
    draw();
    fillUp();
    while (wasAtEnd && pin.pinned && elements() > MOST_ELEMENTS && end - first > 3 * CHUNK) {
      first += CHUNK;
      draw();
    }
    if (!path.length) scroller.scrollTop = 0;
    if (wasEditing && !editing && wasPinned) pin.hold();
    wasEditing = Boolean(editing);
    pin.follow();
  }

  /** @type {Set<string>} */
  const dirty = new Set();
  let flushing = false;

  function flush() {
    flushing = false;
    for (const id of dirty) {
      const view = views.get(id);
      if (view?.view.live) view.showLive();
    }
    dirty.clear(); // the pin follows when the frame has been laid out
  }

  scroller.addEventListener(
    "scroll",
    () => {
      extendUp();
      extendDown();
    },
    { passive: true },
  );
  jump.addEventListener("click", toEnd);
  store.on(["session", "live", "viewLeaf", "context", "bots", "editing", "outgoing", "away"], update);

  return {
    /** New text of a running reply: on the page with the next frame. @param {Live} live */
    flush(live) {
      dirty.add(live.messageId);
      if (flushing) return;
      flushing = true;
      requestAnimationFrame(flush);
    },
    toEnd,
    /** @param {string} id */
    focus(id) {
      const view = views.get(id);
      view?.element.scrollIntoView({ block: "nearest" });
      view?.element.focus();
    },
  };
}
