// @ts-check
/**
 * Modal dialogs on the browser's own <dialog>: it keeps the focus inside, closes with Esc and gives the
 * focus back.
 */

import { h, iconButton } from "../base/dom.js";
import { isTouchOnly } from "../base/input.js";
import { t } from "../base/language.js";
import { closesByBack } from "./back.js";
import { raiseNotes } from "./toast.js";

let serial = 0;

/**
 * @param {string} title
 * @param {(Node | string)[]} content
 * @param {{actions?: (Node | null | false | undefined)[], wide?: boolean, onSubmit?: () => void,
 *   closable?: boolean,
 *   onClose?: () => void}} [options] the actions stay in sight, and so does what is said among them
 */
export function openDialog(title, content, options = {}) {
  const { actions = [], wide = false, onSubmit, closable = true, onClose } = options;
  const id = `dialog-${(serial += 1)}`;
  const body = h("div", { class: "dialog-body" }, ...content);
  const form = h(
    "form",
    { method: "dialog", class: "dialog-form" },
    h(
      "header",
      { class: "dialog-head" },
      h("h2", { id, text: title }),
      closable && iconButton("x", t("Close"), () => dialog.close()),
    ),
    body,
    actions.some(Boolean) && h("footer", { class: "dialog-foot" }, ...actions),
  );
  const dialog = h("dialog", { class: wide ? "dialog wide" : "dialog", "aria-labelledby": id }, form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    onSubmit?.();
  });
  form.addEventListener("keydown", (event) => {
    if (!onSubmit || event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault(); // as it sends a message, in boxes of several lines, too
    form.requestSubmit();
  });
  dialog.addEventListener("cancel", (event) => {
    if (!closable) event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    endBack();
    raiseNotes(); // they stay
    dialog.remove();
    onClose?.();
  });
  let pressedOutside = false;
  dialog.addEventListener("pointerdown", (event) => {
    pressedOutside = event.target === dialog;
  });
  dialog.addEventListener("click", (event) => {
    if (closable && pressedOutside && event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  const endBack = closesByBack(() => closable && dialog.close(), true);
  raiseNotes();
  if (body.scrollHeight > body.clientHeight) body.tabIndex = 0; // the arrow keys scroll it
  const first =
    dialog.querySelector("[data-autofocus]") ||
    dialog.querySelector(".dialog-body input, .dialog-body textarea, .dialog-foot .primary");
  // On a telephone a keyboard comes up for a dialog that is one field, not over a list or a form to be read.
  const fields = body.querySelectorAll("input:not([type=radio], [type=checkbox]), textarea, select");
  const isOneOfMany = first?.matches("[type=search]") || (fields.length > 1 && [...fields].includes(first));
  if (!(isOneOfMany && isTouchOnly())) /** @type {any} */ (first)?.focus();
  return dialog;
}

/**
 * @param {string} text @param {string} kind @param {(() => void) | null} onClick null: it submits the form
 */
export function dialogButton(text, kind, onClick) {
  return h("button", {
    type: onClick ? "button" : "submit",
    class: `button ${kind}`,
    text,
    on: onClick ? { click: onClick } : {},
  });
}

/**
 * @param {string} title
 * @param {string} text
 * @param {string} action what the button that does it says
 * @returns {Promise<boolean>}
 */
export function confirmDialog(title, text, action) {
  return new Promise((resolve) => {
    let answer = false;
    const finish = () => {
      answer = true;
      dialog.close();
    };
    const dialog = openDialog(title, [h("p", { text })], {
      onSubmit: finish,
      onClose: () => resolve(answer),
      actions: [
        dialogButton(t("Cancel"), "ghost", () => dialog.close()),
        dialogButton(action, "primary danger", null),
      ],
    });
  });
}

/**
 * One of several ways to go on, the last of them the usual one; null if none was chosen.
 * @template {string} Key
 * @param {string} title
 * @param {string} text
 * @param {[Key, string][]} ways what is answered, and what its button says
 * @returns {Promise<Key | null>}
 */
export function chooseDialog(title, text, ways) {
  return new Promise((resolve) => {
    /** @type {Key | null} */
    let answer = null;
    const finish = (way) => {
      answer = way;
      dialog.close();
    };
    const dialog = openDialog(title, [h("p", { text })], {
      onSubmit: () => finish(ways[ways.length - 1][0]),
      onClose: () => resolve(answer),
      actions: [
        dialogButton(t("Cancel"), "ghost", () => dialog.close()),
        ...ways.map(([way, says], index) =>
          index < ways.length - 1
            ? dialogButton(says, "", () => finish(way))
            : dialogButton(says, "primary", null),
        ),
      ],
    });
  });
}

/**
 * @param {string} title
 * @param {string} label
 * @param {string} value
 * @param {string} action
 * @param {(text: string) => string} [check] says what is wrong with a text, or ""
 * @param {boolean} [mayBeEmpty] then "" is an answer like others
 * @returns {Promise<string | null>}
 */
export function promptDialog(title, label, value, action, check = () => "", mayBeEmpty = false) {
  return new Promise((resolve) => {
    /** @type {string | null} */
    let answer = null;
    const input = h("input", {
      type: "text",
      class: "text-input",
      maxlength: "200",
      required: !mayBeEmpty,
      "data-autofocus": true,
    });
    input.value = value;
    const wrong = h("p", { class: "help wrong", role: "alert", hidden: true });
    const finish = () => {
      wrong.textContent = check(input.value.trim());
      wrong.hidden = !wrong.textContent;
      if (wrong.textContent) return;
      answer = input.value.trim() || (mayBeEmpty ? "" : null);
      dialog.close();
    };
    const dialog = openDialog(
      title,
      [h("label", { class: "stacked" }, h("span", { class: "label", text: label }), input)],
      {
        onSubmit: finish,
        onClose: () => resolve(answer),
        actions: [
          wrong,
          dialogButton(t("Cancel"), "ghost", () => dialog.close()),
          dialogButton(action, "primary", null),
        ],
      },
    );
    input.select();
  });
}
