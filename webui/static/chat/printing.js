// @ts-check
/**
 * What is printed: the whole conversation as it is shown, though the page itself holds only a part of a long
 * one. Put on the page just before it is printed and taken off afterwards; css/print.css leaves nothing else.
 * @import { Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h } from "../base/dom.js";
import { fullTime, inRow } from "../base/format.js";
import { nameOf } from "../session/store.js";
import { audienceText } from "../session/whisper.js";
import { MarkdownView } from "../text/markdown.js";

/** @param {Store} store @param {Message} message */
function article(store, message) {
  // What stands on the page already has its formulas and colours.
  const there = document.querySelector(`#messages [data-id="${message.id}"] .md`);
  const body = there ? there.cloneNode(true) : h("div", { class: "md" });
  if (!there) new MarkdownView(body).show(message.text);
  body.hidden = false; // while it is edited
  return h(
    "article",
    {},
    h(
      "header",
      {},
      h("b", { dir: "auto", text: nameOf(store.state, message) }),
      ` ${inRow(fullTime(message.created), audienceText(store.state, message))}`,
    ),
    body,
  );
}

/** @param {Store} store @param {Room} room */
export function preparePrinting(store, room) {
  /** @type {HTMLElement | null} */
  let whole = null;
  window.addEventListener("beforeprint", () => {
    whole?.remove();
    room.wholeNow();
    const title = h("h1", { dir: "auto", text: store.state.session?.title || "" });
    whole = h("div", { id: "print" }, title, ...room.path().map((message) => article(store, message)));
    document.body.append(/** @type {any} */ (whole));
  });
  window.addEventListener("afterprint", () => whole?.remove());
}
