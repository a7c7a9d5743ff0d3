// @ts-check
/**
 * The dialog that says whom a message is for: everyone, or some of the bots.
 * @import { Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h } from "../base/dom.js";
import { t, together } from "../base/language.js";
import { dialogButton, openDialog } from "../overlays/dialogs.js";
import { namesOf } from "../session/whisper.js";

/**
 * @param {Store} store
 * @param {{author: string, chosen: string[] | null, help?: string}} which a bot knows what it said itself
 * @param {(chosen: string[] | null) => void} onChosen
 */
export function openAudience(store, { author, chosen, help = "" }, onChosen) {
  const here = (store.state.session?.bots || []).map((entry) => entry.id);
  const ids = [...here, ...(chosen || []).filter((id) => !here.includes(id))];
  const save = dialogButton(t("Save"), "primary", null);
  const everyone = choice(t("Everyone, and who comes in later"), !chosen);
  const some = choice(t("Only these:"), Boolean(chosen));
  const boxes = ids.map((id) => {
    const input = h("input", { type: "checkbox", value: id, disabled: id === author, on: { change: picked } });
    input.checked = id === author || Boolean(chosen?.includes(id));
    return { input, label: h("label", { class: "choice" }, input, h("span", { text: namesOf(store.state, [id]) })) };
  });

  /** @param {string} text @param {boolean} checked */
  function choice(text, checked) {
    const input = h("input", { type: "radio", name: "audience", "data-autofocus": checked, on: { change: update } });
    input.checked = checked;
    return { input, label: h("label", { class: "choice" }, input, h("span", { class: "choice-name", text })) };
  }

  const wanted = () => boxes.filter(({ input }) => input.checked).map(({ input }) => input.value);

  function picked() {
    some.input.checked = true;
    update();
  }

  function update() {
    save.disabled = some.input.checked && !wanted().length;
  }

  const dialog = openDialog(
    t("Whom it is for"),
    [
      h(
        "div",
        { class: "choices", role: "group", "aria-label": t("Whom it is for") },
        everyone.label,
        some.label,
        h("div", { class: "audience" }, ...boxes.map(({ label }) => label)),
      ),
      h("p", {
        class: "help",
        text: together(t("No other bot is sent it, nor a summary of it, and the answers are for the same ones. You see all."), help),
      }),
    ],
    {
      actions: [dialogButton(t("Cancel"), "ghost", () => dialog.close()), save],
      onSubmit: () => {
        if (save.disabled) return;
        dialog.close();
        onChosen(everyone.input.checked ? null : wanted());
      },
    },
  );
  update();
}

/** Of a message that is there. @param {Store} store @param {Room} room @param {Message} message */
export function changeAudience(store, room, message) {
  const help = t("What bots have said since then stays.");
  openAudience(store, { author: message.author, chosen: message.for || null, help }, (chosen) =>
    room.whisper(message, chosen),
  );
}
