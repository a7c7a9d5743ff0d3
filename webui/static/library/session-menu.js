// @ts-check
/**
 * The menu of a session in the list.
 * @import { Summary } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Page } from "./session-list.js"
 */

import { t } from "../base/language.js";
import { openMenu } from "../overlays/menu.js";
import { arrange, openFolders, openTags } from "./arranging.js";

/** @param {Summary} session @param {HTMLElement} anchor @param {Store} store @param {Page} page */
export function openSessionMenu(session, anchor, store, page) {
  const pinned = Boolean(session.pinned);
  openMenu(anchor, t("Actions for {title}", { title: session.title }), [
    { label: t("Rename"), icon: "pencil", onSelect: () => page.rename(session) },
    {
      label: pinned ? t("Unpin") : t("Pin to the top"),
      icon: pinned ? "pin-off" : "pin",
      onSelect: () => arrange(store, page, [session], { pinned: !pinned }),
    },
    { label: t("Folder"), icon: "panel-left", onSelect: () => openFolders(anchor, store, page, [session]) },
    { label: t("Tags"), icon: "pencil", onSelect: () => openTags(store, page, [session]) },
    { label: t("Duplicate"), icon: "copy", onSelect: () => page.duplicate(session) },
    "line",
    { label: t("Export as JSON"), icon: "file-json", onSelect: () => page.exported(session, "json") },
    { label: t("Export as Markdown"), icon: "file-text", onSelect: () => page.exported(session, "markdown") },
    { label: t("Export as HTML"), icon: "file-code", onSelect: () => page.exported(session, "html") },
    {
      label: t("Export for other programs"),
      icon: "download",
      onSelect: () => openForOthers(session, anchor, page),
    },
    { label: t("Print"), icon: "printer", onSelect: () => page.print(session) },
    "line",
    { label: t("Delete"), icon: "trash-2", danger: true, onSelect: () => page.remove(session) },
  ]);
}

/** @param {Summary} session @param {HTMLElement} anchor @param {Page} page */
function openForOthers(session, anchor, page) {
  const item = (label, help, format) => ({ label, help, icon: "download", onSelect: () => page.exported(session, format) });
  openMenu(anchor, t("Export for other programs"), [
    item(t("For SillyTavern (.jsonl)"), t("What is shown; other versions of a reply are swipes."), "sillytavern"),
    item(t("For Open WebUI (.json)"), t("Every branch."), "openwebui"),
    item(t("Messages with roles (.jsonl)"), t("What is shown, in one line, as models are trained on."), "messages"),
  ]);
}
