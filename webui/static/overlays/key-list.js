// @ts-check
/** The dialog that lists the keyboard shortcuts. */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";
import { openDialog } from "./dialogs.js";

/** What is written on keys. */
const KEYS = { Ctrl: t("Ctrl"), Shift: t("Shift"), Enter: t("Enter"), Esc: t("Esc"), Home: t("Home") };
const LIST = [
  ["Enter", t("Send")],
  ["Shift Enter", t("New line")],
  ["Ctrl Enter", t("Send, also on a touch screen")],
  ["Esc", t("Close, leave an edit, or stop the reply")],
  ["↑", t("In an empty box: edit your last message")],
  ["Alt Enter", t("Continue the last reply")],
  ["← →", t("Outside a box: other versions of a message")],
  ["Ctrl Shift C", t("Copy the last reply")],
  ["Ctrl Z", t("Outside a box: undo the last change of the session; with Shift redo it")],
  ["Ctrl K", t("Search sessions")],
  ["Ctrl F", t("Find in this chat; once more: the browser's own")],
  ["Ctrl .", t("Timeline: a map of the chat, with all of its versions")],
  ["Ctrl Home", t("To the beginning of the chat; with End to its end")],
  ["Ctrl Shift O", t("New session")],
  ["Ctrl B", t("Sessions panel")],
  ["Ctrl ,", t("Settings panel")],
  ["Ctrl /", t("This list")],
  ["Shift ↑ ↓", t("In the list of sessions: select several; Ctrl A selects all")],
  ["Alt ← →", t("On a bot above the chat: move it")],
];

/** Those of chat/reader.js. */
const FOR_READERS = [
  ["Alt N", t("The next message; with P the one before")],
  ["Alt Shift N", t("The next one of somebody else; with P the one before")],
  ["Alt .", t("The next version of the message; with , the one before")],
  ["Alt R", t("Who is here, who writes, how many messages, how much memory")],
];

/** @param {string[][]} list */
const table = (list) =>
  h(
    "dl",
    { class: "keys" },
    ...list.map(([keys, what]) =>
      h("div", {}, h("dt", {}, ...keys.split(" ").map((key) => h("kbd", { text: key }))), h("dd", { text: what })),
    ),
  );

export function openKeyList() {
  openDialog(t("Keyboard"), [
    table(LIST),
    h("h3", { class: "group-label", text: t("For screen readers, once that is chosen under Appearance") }),
    table(FOR_READERS),
  ]);
}
