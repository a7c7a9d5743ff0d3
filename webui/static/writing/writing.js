// @ts-check
/**
 * What helps to write, in the menu of the message box: the model writes the message, or goes on with what is
 * typed; or the beginning of the reply is given. Nothing of it is sent by itself.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { announce } from "../base/announce.js";
import { h } from "../base/dom.js";
import { t } from "../base/language.js";
import { recall, remember } from "../base/storage.js";
import { ApiError } from "../server/api.js";
import { eventsAt } from "../server/stream.js";
import { dialogButton, openDialog } from "../overlays/dialogs.js";
import { openMenu } from "../overlays/menu.js";
import { toastError } from "../overlays/toast.js";

/**
 * The message box: `value` without what is on its way, `fill` sets it, `submit` sends it.
 * @typedef {{text: HTMLTextAreaElement, fill: (value: string) => void,
 *   submit: (begin: string) => void, attach: () => void}} Box
 */

/** What is being written for the user, and how it ends. @type {AbortController | null} */
let writing = null;

/**
 * @param {Store} store @param {Room} room @param {HTMLElement} anchor @param {Box} box
 */
export function openWritingMenu(store, room, anchor, box) {
  const busy = store.state.live.size > 0;
  const typed = box.text.value.trim() !== "";
  openMenu(anchor, t("What helps to write"), [
    {
      label: t("Attach files"),
      icon: "paperclip",
      help: t("Or drop them on the page, or paste them."),
      onSelect: box.attach,
    },
    {
      label: typed ? t("Write the rest for me") : t("Write my message for me"),
      icon: "pencil",
      help: t("The model writes it into the box. It is not sent."),
      disabled: busy || !store.state.session?.bots.length,
      onSelect: () => writeForMe(store, room, box),
    },
    {
      label: t("Begin the reply with…"),
      icon: "play",
      help: typed ? t("Your message is sent, and the answer goes on from your words.") : t("The reply goes on from your words."),
      disabled: busy || !store.state.session?.bots.length,
      onSelect: async () => {
        const begin = await askBeginning(store);
        if (begin !== null) box.submit(begin);
      },
    },
  ]);
}

/**
 * Ask for the first words of a reply; null if it is left to begin by itself. What was typed is kept until it
 * is used.
 * @param {Store} store @returns {Promise<string | null>}
 */
export function askBeginning(store) {
  const key = `begin.${store.state.session?.id || "new"}`;
  return new Promise((resolve) => {
    /** @type {string | null} */
    let answer = null;
    const text = h("textarea", {
      class: "text-input",
      rows: "3",
      maxlength: "50000",
      dir: "auto",
      required: true,
      "aria-label": t("The first words of the reply"),
      "data-autofocus": true,
      on: { input: () => remember(key, text.value) },
    });
    text.value = recall(key);
    const dialog = openDialog(t("Begin the reply with"), [text], {
      onSubmit() {
        if (!text.value.trim()) return;
        answer = text.value.trimEnd();
        remember(key, "");
        dialog.close();
      },
      onClose: () => resolve(answer),
      actions: [
        dialogButton(t("Cancel"), "ghost", () => dialog.close()),
        dialogButton(t("Write it"), "primary", null),
      ],
    });
  });
}

/**
 * The pieces of a message that the model writes for the user, as they come.
 * @param {string} sessionId @param {string} begun @param {string[] | null} audience whom it is for
 * @param {AbortSignal} signal
 */
async function* pieces(sessionId, begun, audience, signal) {
  const path = `/api/sessions/${sessionId}/messages/draft`;
  for await (const events of eventsAt(path, signal, { begun, for: audience }))
    for (const { type, data } of events) {
      if (type === "error") throw new ApiError(500, { error: data });
      if (type === "text") yield data.text;
    }
}

/** @param {Store} store @param {Room} room @param {Box} box */
async function writeForMe(store, room, box) {
  writing?.abort();
  const abort = (writing = new AbortController());
  const { text } = box;
  const form = /** @type {HTMLFormElement} */ (text.form);
  const before = text.value;
  let shown = before;
  const line = h("div", { class: "writing-line" });
  /** @param {string} said @param {[string, () => void][]} buttons */
  const tell = (said, buttons) =>
    line.replaceChildren(
      h("span", { text: said }),
      ...buttons.map(([label, onClick]) =>
        h("button", { type: "button", class: "text-button", text: label, on: { click: onClick } }),
      ),
    );
  const stop = () => abort.abort();
  const end = () => {
    stop();
    line.remove();
    text.removeEventListener("input", end); // whoever types has it as it is
    text.removeEventListener("keydown", escape);
    form.removeEventListener("filled", compare);
  };
  /** It was sent, or another session is shown. */
  const compare = () => text.value !== shown && end();
  const escape = (event) => {
    if (event.key !== "Escape" || abort.signal.aborted) return;
    event.preventDefault();
    stop();
  };
  const back = () => {
    end();
    box.fill(before);
    text.focus();
  };
  document.querySelector(".writing-line")?.remove();
  text.before(line);
  text.addEventListener("input", end);
  text.addEventListener("keydown", escape);
  form.addEventListener("filled", compare);
  tell(t("The model writes your message…"), [[t("Stop"), stop]]);
  try {
    const id = await room.ready();
    if (!id || !line.isConnected) return end();
    for await (const piece of pieces(id, before.trimEnd(), store.state.audience, abort.signal)) {
      if (!line.isConnected) return;
      shown = (shown === before ? before.trimEnd() : shown) + piece;
      box.fill(shown);
    }
  } catch (error) {
    if (!abort.signal.aborted) toastError(error);
  }
  if (!line.isConnected) return;
  if (shown === before) return end();
  announce(t("Your message is written; it is not sent."));
  tell(t("Written by the model, not sent."), [
    [t("Undo"), back],
    [
      t("Another one"),
      () => {
        back();
        writeForMe(store, room, box);
      },
    ],
  ]);
}
