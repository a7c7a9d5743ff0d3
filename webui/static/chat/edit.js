// @ts-check
/**
 * The editor that stands in a message's place: a branch for the user's words, a correction in place for a
 * reply. What is typed is kept at once, and the element stays the same whatever else changes.
 * @import { View, Handlers } from "./message.js"
 */

import { fitHeight, h } from "../base/dom.js";
import { isComposing, trimLines } from "../base/input.js";
import { t } from "../base/language.js";
import { editDraft, keepEdit } from "../session/edit-drafts.js";

/**
 * @param {() => View} current the message as it is by then
 * @param {Handlers} handlers
 */
export function editor(current, handlers) {
  const { message, isUser, name, sessionId } = current();
  const draft = editDraft(sessionId, message.id);
  const area = h("textarea", {
    class: "edit-text",
    rows: "2",
    dir: "auto",
    "aria-label": t("Edit what {name} said", { name }),
  });
  area.value = draft?.text ?? message.text;
  const grow = () => fitHeight(area, /** @type {HTMLElement} */ (area.parentElement));
  const keep = () => {
    const changed = area.value !== current().message.text;
    keepEdit(sessionId, message.id, changed ? { text: area.value, open: true } : null);
  };
  const cancel = () => {
    keepEdit(sessionId, message.id, null);
    handlers.edit(null);
  };
  let sending = false;
  /** @param {(message: View["message"], text: string) => Promise<boolean>} send */
  const finish = async (send) => {
    const text = trimLines(area.value);
    if (!text || text === current().message.text) cancel();
    else if (!sending) {
      sending = true;
      if (await send(current().message, text)) keepEdit(sessionId, message.id, null);
      sending = false;
    }
  };
  const proceed = () => finish(isUser ? handlers.branch : handlers.save);
  area.addEventListener("input", () => {
    grow();
    keep();
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !isComposing(event)) {
      event.preventDefault();
      event.stopPropagation();
      proceed();
    }
  });
  if (draft) keep(); // it is open again
  requestAnimationFrame(() => {
    grow();
    if (document.activeElement === area) return; // somebody is in it already, with a selection of their own
    area.focus({ preventScroll: true });
    area.setSelectionRange(area.value.length, area.value.length);
    area.parentElement?.scrollIntoView({ block: "nearest" }); // with its buttons
  });
  const button = (text, kind, onClick) =>
    h("button", { type: "button", class: `button ${kind}`, text, on: { click: onClick } });
  const help = isUser ? t("What followed stays, as the other version.") : t("Everything after it stays.");
  return h(
    "div",
    { class: "edit" },
    area,
    h(
      "div",
      { class: "edit-row" },
      button(isUser ? t("Send as a new branch") : t("Save"), "primary", proceed),
      isUser && button(t("Only correct it"), "", () => finish(handlers.save)),
      button(t("Cancel"), "ghost", cancel),
      h("span", { class: "help", text: draft ? t("These are your words from before. Cancel drops them.") : help }),
    ),
  );
}
