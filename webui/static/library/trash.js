// @ts-check
/**
 * The trash: sessions and bots that were deleted, to bring back or to delete for good.
 * @import { Deleted } from "../types.js"
 * @import { Page } from "./session-list.js"
 */

import { h, setText } from "../base/dom.js";
import { fullTime } from "../base/format.js";
import { t, tn } from "../base/language.js";
import { get, post, remove } from "../server/api.js";
import { confirmDialog, dialogButton, openDialog } from "../overlays/dialogs.js";
import { toast, toastError } from "../overlays/toast.js";
import { inParts } from "./arranging.js";
import { forget } from "./library.js";

const DAY_SECONDS = 86_400;

/** @param {Page} page */
export async function openTrash(page) {
  const first = await read(0);
  if (!first) return;
  /** What is shown, and how many there are. @type {Deleted[]} */
  let entries = [];
  let number = 0;
  /** @type {Set<string>} */
  const chosen = new Set();
  const list = h("ul", { class: "trash-list", "aria-label": t("Deleted sessions and bots") });
  const note = h("p", { class: "help" });
  const all = h("input", { type: "checkbox", on: { change: chooseAll } });
  const head = h("label", { class: "trash-all" }, all, h("span"));
  const more = h("button", { type: "button", class: "text-button", on: { click: showMore } });
  const restore = dialogButton(t("Restore"), "primary", () => bringBack());
  const erase = dialogButton(t("Delete for good"), "danger", () => eraseForGood());

  /** @param {{entries: Deleted[], number: number}} body */
  function take(body) {
    entries = [...entries, ...body.entries];
    number = body.number;
    list.append(...body.entries.map(row));
    show();
  }

  async function showMore() {
    const body = await read(entries.length);
    if (!body) return;
    const before = list.childElementCount;
    take(body);
    list.children[before]?.querySelector("input")?.focus();
  }

  function show() {
    setText(
      note,
      number
        ? t("What is deleted is kept for 30 days, and goes with the first start of Parlor after them.")
        : t("The trash is empty."),
    );
    setText(head.lastChild, chosen.size ? tn("{count} selected", "{count} selected", chosen.size) : t("Select all"));
    all.checked = chosen.size > 0 && chosen.size === entries.length;
    all.indeterminate = chosen.size > 0 && !all.checked;
    head.hidden = !number;
    more.hidden = entries.length >= number;
    setText(more, tn("Show one more", "Show {count} more", number - entries.length));
    restore.disabled = erase.disabled = !chosen.size;
  }

  function chooseAll() {
    chosen.clear();
    if (all.checked) for (const { undo } of entries) chosen.add(undo);
    for (const box of list.querySelectorAll("input")) box.checked = all.checked;
    show();
  }

  /** @param {Deleted} entry */
  function row(entry) {
    const box = h("input", {
      type: "checkbox",
      on: {
        change: () => {
          if (box.checked) chosen.add(entry.undo);
          else chosen.delete(entry.undo);
          show();
        },
      },
    });
    const days = Math.ceil((entry.kept_until - Date.now() / 1000) / DAY_SECONDS);
    const facts = [
      entry.kind === "bot" ? t("A bot") : tn("{count} message", "{count} messages", entry.num_messages || 0),
      t("deleted {time}", { time: fullTime(entry.deleted) }),
      days > 0 ? tn("kept for one more day", "kept for {count} more days", days) : t("goes with the next start"),
    ];
    return h(
      "li",
      { data: { undo: entry.undo } },
      h(
        "label",
        { class: "trash-entry" },
        box,
        h(
          "span",
          { class: "trash-text" },
          h("span", { class: "session-title", dir: "auto", text: entry.name || t("A damaged file") }),
          h("span", { class: "help", text: facts.join(" · ") }),
        ),
      ),
    );
  }

  /** These are not in the trash any more. @param {string[]} gone */
  function drop(gone) {
    for (const undo of gone) {
      chosen.delete(undo);
      list.querySelector(`[data-undo="${undo}"]`)?.remove();
    }
    entries = entries.filter((entry) => !gone.includes(entry.undo));
    number -= gone.length;
    show();
    /** @type {any} */ (list.querySelector("input") || dialog.querySelector(".dialog-head button"))?.focus();
  }

  async function bringBack() {
    const wanted = entries.filter((entry) => chosen.has(entry.undo));
    const answers = await inParts([...chosen], (part) => post("/api/trash/restore", { undo: part }));
    const back = answers.flatMap((answer) => answer.restored);
    drop(back);
    await Promise.all([page.reload(), wanted.some(({ kind }) => kind === "bot") && page.reloadBots()]);
    const [only] = wanted;
    if (!back.length) return;
    if (back.length > 1 || only.kind === "bot") toast(tn("Restored one.", "Restored {count}.", back.length));
    else
      toast(t("Restored “{title}”.", { title: only.name }), {
        action: t("Open"),
        onAction: () => {
          dialog.close();
          page.open(only.id);
        },
      });
  }

  async function eraseForGood() {
    const sure = await confirmDialog(
      t("Delete for good?"),
      tn("What you selected cannot be brought back.", "The {count} that you selected cannot be brought back.", chosen.size),
      t("Delete for good"),
    );
    if (!sure) return;
    const answers = await inParts([...chosen], (part) => remove("/api/trash", { undo: part }));
    const erased = answers.flatMap((answer) => answer.erased);
    forget(entries.filter(({ kind, undo }) => kind === "session" && erased.includes(undo)).map(({ id }) => id));
    drop(erased);
  }

  const dialog = openDialog(t("Trash"), [note, head, list, more], {
    wide: true,
    actions: [erase, restore],
    onSubmit: () => {},
  });
  take(first);
  /** @type {any} */ (number ? all : dialog.querySelector(".dialog-head button")).focus();
}

/** @param {number} from */
async function read(from) {
  return get(`/api/trash?from=${from}`).catch(toastError);
}
