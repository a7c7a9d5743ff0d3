// @ts-check
/**
 * A summary of what was said up to a message: the model writes it, a person corrects it, and it stands for
 * those messages in what bots are sent.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h } from "../base/dom.js";
import { t, tn, together } from "../base/language.js";
import { recall, remember } from "../base/storage.js";
import { ApiError, request } from "../server/api.js";
import { dialogButton, openDialog } from "../overlays/dialogs.js";
import { toast } from "../overlays/toast.js";
import { namesOf } from "../session/whisper.js";

/** @param {string} names of those who alone are sent it, or "" */
const helpFor = (names) =>
  names
    ? t("It stands for these messages in what {names} is sent. The chat keeps them as they are.", { names })
    : t(
        "It stands for these messages in what every bot is sent. The chat keeps them as they are, and pinned ones are still sent.",
      );

/**
 * What is to be summarized where the context is full: the older half of what is still in, and all before it.
 * @param {Store} store @param {Room} room @returns {string | undefined} the last message of it
 */
export function olderHalf(store, room) {
  const path = room.path().filter((message) => !store.state.live.has(message.id));
  const first = store.state.context?.first_message;
  const begins = Math.max(
    0,
    path.findIndex((message) => message.id === first),
  );
  return path[begins + Math.floor((path.length - begins) / 2) - 1]?.id;
}

/**
 * @param {Store} store @param {Room} room @param {string | undefined} until the last of its messages
 * @param {string[]} [readers] the bots whom it is for, else all
 * @param {() => void} [onClose]
 */
export function openSummary(store, room, until, readers, onClose = () => {}) {
  const { session } = store.state;
  const help = helpFor(readers ? namesOf(store.state, readers) : "");
  const path = room.path();
  const number = path.findIndex((message) => message.id === until) + 1;
  if (!session?.id || !until || !number || (number === path.length && !readers)) {
    toast(t("There is too little to summarize yet."));
    return;
  }
  const key = `summary.${session.id}.${until}${readers ? `.${readers.join(".")}` : ""}`;
  const same = (summary) => summary.until === until && `${summary.for || ""}` === `${readers || ""}`;
  const known = session.summaries?.find(same);
  const abort = new AbortController();
  let isSaved = false;
  const status = h("p", { class: "help", role: "status", text: help });
  const text = h("textarea", {
    class: "text-input",
    rows: "9",
    maxlength: "50000",
    dir: "auto",
    "aria-label": t("Summary"),
    on: { input: update },
  });
  text.value = recall(key) || known?.text || "";
  const write = dialogButton(t("Let the model write it"), "", draft);
  const save = dialogButton(t("Save"), "primary", null);
  const drop = known && dialogButton(t("Delete"), "danger at-start", remove);
  const dialog = openDialog(tn("Summary of one message", "Summary of {count} messages", number), [status, text], {
    wide: true,
    actions: [drop, write, save],
    onSubmit: keep,
    onClose: () => {
      abort.abort();
      const changed = text.value.trim() && text.value !== (known?.text || "");
      remember(key, !isSaved && changed ? text.value : ""); // what was typed is there again next time
      onClose();
    },
  });

  function update() {
    save.disabled = text.readOnly || !text.value.trim();
    write.disabled = text.readOnly;
  }

  async function draft() {
    text.readOnly = true;
    status.classList.remove("wrong");
    status.textContent = t("The model reads and writes; this may take a while. Closing the window stops it.");
    update();
    const path = `/api/sessions/${session?.id}/summaries/draft`;
    try {
      const { text: written, left_out: out } = await request("POST", path, { until, for: readers }, {}, abort.signal);
      text.value = written;
      status.textContent = out
        ? together(tn("The first message did not fit in.", "The first {count} messages did not fit in.", out), help)
        : help;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      status.textContent = together(error.message, error.hint);
      status.classList.add("wrong");
    }
    text.readOnly = false;
    update();
  }

  async function keep() {
    if (save.disabled) return;
    save.disabled = true;
    isSaved = await room.summarize(/** @type {string} */ (until), text.value, readers);
    if (isSaved) dialog.close();
    else update();
  }

  async function remove() {
    if (!known || !(await room.dropSummary(known.id))) return;
    isSaved = true;
    dialog.close();
    toast(t("The bots are sent these messages again."), {
      action: t("Undo"),
      onAction: () => room.summarize(known.until, known.text, readers),
    });
  }

  update();
  if (!text.value) draft();
}
