// @ts-check
/**
 * The line above the message box that says whom the message is for, while it is not for all.
 * @import { Store } from "../session/store.js"
 */

import { byId, h, icon, iconButton, setText } from "../base/dom.js";
import { t } from "../base/language.js";
import { audienceText, whisperTo } from "../session/whisper.js";

/** Choose whom what is typed is for. @param {Store} store */
export async function chooseAudience(store) {
  const { openAudience } = await import("../memory/audience.js");
  openAudience(store, { author: "user", chosen: store.state.audience }, (chosen) => whisperTo(store, chosen));
}

/** @param {Store} store */
export function createWhisperLine(store) {
  const who = h("button", {
    type: "button",
    class: "text-button",
    title: t("Whom it is for"),
    on: { click: () => chooseAudience(store) },
  });
  const all = iconButton("x", t("For everyone again"), () => {
    whisperTo(store, null);
    byId("text").focus();
  });
  const line = h("div", { class: "whisper-line", hidden: true }, icon("lock"), who, all);
  store.on(["audience", "bots"], () => {
    const said = audienceText(store.state, { author: "user", for: store.state.audience });
    line.hidden = !said;
    byId("composer").classList.toggle("is-whisper", Boolean(said));
    setText(who, said);
  });
  return line;
}
