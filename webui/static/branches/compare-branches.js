// @ts-check
/**
 * Two branches of a chat side by side: what they have in common folded away, then each from where they part.
 * @import { Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { h, monogram } from "../base/dom.js";
import { messageTime } from "../base/format.js";
import { t, tn } from "../base/language.js";
import { commonPart } from "../session/branches.js";
import { botOf, nameOf, pictureOf } from "../session/store.js";
import { dialogButton, openDialog } from "../overlays/dialogs.js";
import { MarkdownView } from "../text/markdown.js";
import { USER_COLOR } from "../chat/transcript.js";

/** Messages of a side that are put on the page at a time. */
const PART = 30;

/**
 * @param {Store} store @param {Message[]} left a whole path @param {Message[]} right
 * @param {(id: string) => void} show leads to a message of the chat
 */
export function compareBranches(store, left, right, show) {
  const common = commonPart(left, right);
  const jump = (id) => {
    dialog.close();
    show(id);
  };

  /** @param {Message} message */
  function shown(message) {
    const bot = message.author === "user" ? null : botOf(store.state, message.author);
    const who = nameOf(store.state, message);
    const body = h("div", { class: "md", dir: "auto" });
    new MarkdownView(body, () => {}).show(message.text);
    return h(
      "article",
      { class: "compared" },
      h(
        "header",
        { class: "compared-head" },
        monogram(who, bot?.color || USER_COLOR, "tiny", pictureOf(bot)),
        h("span", { class: "name", dir: "auto", text: who }),
        h("time", { class: "quiet", text: messageTime(message.created) }),
      ),
      body,
    );
  }

  /** Messages, of many a part and a button for more. @param {HTMLElement} place
   * @param {Message[]} messages */
  function fill(place, messages) {
    let at = 0;
    const more = h("button", { type: "button", class: "text-button", on: { click: add } });
    place.append(more);
    function add() {
      const hadFocus = document.activeElement === more;
      const part = messages.slice(at, at + PART).map(shown);
      more.before(...part);
      at += PART;
      more.hidden = at >= messages.length;
      more.textContent = tn("Show one more message", "Show {count} more messages", Math.max(0, messages.length - at));
      if (hadFocus && more.hidden) dialog.focus();
    }
    add();
  }

  /** @param {Message[]} path @param {string} title */
  function side(path, title) {
    const own = path.slice(common);
    const label = own.findLast((message) => message.label)?.label;
    const begins = own[0] || path[path.length - 1];
    const said = h("div", {});
    if (own.length) fill(said, own);
    else said.append(h("p", { class: "help", text: t("It ends here.") }));
    return h(
      "section",
      { class: "side", "aria-label": label || title },
      h("h3", { class: "group-label", dir: "auto", text: label || title }),
      h("button", {
        type: "button",
        class: "text-button",
        text: t("Show this one in the chat"),
        on: { click: () => jump(begins.id) },
      }),
      said,
    );
  }

  const together = common > 0 && h("details", { class: "in-common" });
  if (together) {
    together.append(
      h("summary", { text: tn("{count} message in common", "{count} messages in common", common) }),
    );
    together.addEventListener("toggle", () => together.childElementCount < 2 && fill(together, left.slice(0, common)));
  }
  const dialog = openDialog(
    t("Two branches"),
    [
      together,
      common > 0 && h("p", { class: "parting", text: t("From here on they part.") }),
      h("div", { class: "sides" }, side(left, t("The first branch")), side(right, t("The second branch"))),
    ].filter(Boolean),
    { actions: [dialogButton(t("Close"), "primary", () => dialog.close())] },
  );
  dialog.classList.add("timeline");
  dialog.tabIndex = -1;
}
