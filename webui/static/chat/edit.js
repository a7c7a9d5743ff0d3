// @ts-check
/** The editor that stands in a message's place: a branch for the user's words, a correction in place for a reply. */

import { h } from "../base/dom.js";
import { isComposing } from "../base/input.js";

/**
 * @param {import("./message.js").View} view
 * @param {import("./message.js").Handlers} handlers
 */
export function editor({ message, isUser, name }, handlers) {
  const area = h("textarea", {
    class: "edit-text",
    rows: "2",
    dir: "auto",
    "aria-label": `Edit what ${name} said`,
  });
  area.value = message.text;
  const grow = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  };
  const finish = () => {
    const text = area.value.trim();
    if (!text || text === message.text) handlers.edit(null);
    else if (isUser) handlers.branch(message, text);
    else handlers.save(message, text);
  };
  area.addEventListener("input", grow);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !isComposing(event)) {
      event.preventDefault();
      event.stopPropagation();
      finish();
    }
  });
  requestAnimationFrame(() => {
    grow();
    area.focus({ preventScroll: false });
    area.setSelectionRange(area.value.length, area.value.length);
  });
  const button = (text, kind, onClick) =>
    h("button", { type: "button", class: `button ${kind}`, text, on: { click: onClick } });
  return h(
    "div",
    { class: "edit" },
    area,
    h(
      "div",
      { class: "edit-row" },
      button(isUser ? "Send as a new branch" : "Save", "primary", finish),
      isUser && button("Only correct it", "", () => handlers.save(message, area.value.trim() || message.text)),
      button("Cancel", "ghost", () => handlers.edit(null)),
      h("span", {
        class: "help",
        text: isUser ? "What followed stays, as the other version." : "Everything after it stays.",
      }),
    ),
  );
}
