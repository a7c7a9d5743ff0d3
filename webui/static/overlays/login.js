// @ts-check
/** Asks for the password when the server wants one (it was started with --password). */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";
import { post } from "../server/api.js";
import { dialogButton, openDialog } from "./dialogs.js";

let asking = false;

/** @param {() => void} onDone */
export function askForPassword(onDone) {
  if (asking) return;
  asking = true;
  const input = h("input", {
    type: "password",
    class: "text-input",
    required: true,
    autocomplete: "current-password",
    "data-autofocus": true,
  });
  const wrong = h("p", { class: "help wrong", role: "alert", hidden: true });
  const dialog = openDialog(
    t("Parlor is locked"),
    [
      h("p", { text: t("This Parlor was started with a password.") }),
      h("label", { class: "stacked" }, h("span", { class: "label", text: t("Password") }), input),
      wrong,
    ],
    {
      closable: false,
      actions: [dialogButton(t("Come in"), "primary", null)],
      onSubmit: async () => {
        try {
          await post("/api/login", { password: input.value });
          asking = false;
          dialog.close();
          onDone();
        } catch (error) {
          wrong.hidden = false;
          wrong.textContent = /** @type {Error} */ (error).message;
          input.select();
        }
      },
    },
  );
}
