// @ts-check
/**
 * The author's note of a session: a text, and how many messages from the end it stands.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";

const USUAL_DEPTH = 4;
const MAX_DEPTH = 100;

/** @param {Store} store @param {Room} room */
export function createNote(store, room) {
  const text = h("textarea", {
    id: "note",
    class: "text-input",
    maxlength: "50000",
    rows: "3",
    dir: "auto",
    autocomplete: "off",
    "aria-describedby": "note-help",
  });
  const depth = h("input", {
    id: "note-depth",
    class: "number",
    type: "number",
    min: "1",
    max: String(MAX_DEPTH),
    step: "1",
    inputmode: "numeric",
  });
  const change = () => {
    const wanted = Math.min(MAX_DEPTH, Math.max(1, Math.round(Number(depth.value)) || USUAL_DEPTH));
    room.change({ note: text.value ? { text: text.value, depth: wanted } : null });
  };
  text.addEventListener("input", change);
  depth.addEventListener("change", () => {
    change();
    showDepth();
  });

  function showDepth() {
    depth.value = String(store.state.session?.note?.depth || USUAL_DEPTH);
  }

  function show() {
    if (document.activeElement !== text) text.value = store.state.session?.note?.text || "";
    if (document.activeElement !== depth) showDepth(); // else an answer would undo what is being typed
  }

  store.on(["session"], show);
  show();
  return h(
    "div",
    { class: "field" },
    h("div", { class: "field-head" }, h("label", { for: "note", text: t("Author's note") })),
    text,
    h("p", {
      class: "help",
      id: "note-help",
      text: t("What every bot is to keep in mind just now. It stands in brackets near the end of what they are sent, is never left out, and moves on with each message."),
    }),
    h(
      "div",
      { class: "field-head" },
      h("label", { for: "note-depth", text: t("Messages from the end") }),
      depth,
    ),
  );
}
