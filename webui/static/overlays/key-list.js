// @ts-check
/** The dialog that lists the keyboard shortcuts. */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";
import { openDialog } from "./dialogs.js";

const LIST = [
  ["Enter", "Send"],
  ["Shift Enter", "New line"],
  ["Ctrl Enter", "Send, also on a touch screen"],
  ["Esc", "Close, leave an edit, or stop the reply"],
  ["↑", "In an empty box: edit your last message"],
  ["Alt Enter", "Continue the last reply"],
  ["← →", "Outside a box: other versions of a message"],
  ["Ctrl Shift C", "Copy the last reply"],
  ["Ctrl K", "Search sessions"],
  ["Ctrl F", "Find in this chat; once more: the browser's own"],
  ["Ctrl .", "Timeline: a map of the chat, with all of its versions"],
  ["Ctrl Home", "To the beginning of the chat; with End to its end"],
  ["Ctrl Shift O", "New session"],
  ["Ctrl B", "Sessions panel"],
  ["Ctrl ,", "Settings panel"],
  ["Ctrl /", "This list"],
  ["Shift ↑ ↓", "In the list of sessions: select several; Ctrl A selects all"],
  ["Alt ← →", "On a bot above the chat: move it"],
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
  openDialog("Keyboard", [
    table(LIST),
    h("h3", { class: "group-label", text: t("For screen readers, once that is chosen under Appearance") }),
    table(FOR_READERS),
  ]);
}
