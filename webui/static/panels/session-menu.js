// @ts-check
/**
 * The menu of a session in the list.
 * @import { Summary } from "../types.js"
 * @import { Library } from "./library.js"
 */

import { openMenu } from "../overlays/menu.js";

/** @param {Summary} session @param {HTMLElement} anchor @param {Library} library */
export function openSessionMenu(session, anchor, library) {
  openMenu(anchor, `Actions for ${session.title}`, [
    { label: "Rename", icon: "pencil", onSelect: () => library.rename(session) },
    { label: "Duplicate", icon: "copy", onSelect: () => library.duplicate(session) },
    "line",
    { label: "Export as JSON", icon: "file-json", onSelect: () => library.exported(session, "json") },
    { label: "Export as Markdown", icon: "file-text", onSelect: () => library.exported(session, "markdown") },
    { label: "Export as HTML", icon: "file-code", onSelect: () => library.exported(session, "html") },
    { label: "Print", icon: "printer", onSelect: () => library.print(session) },
    "line",
    { label: "Delete", icon: "trash-2", danger: true, onSelect: () => library.remove(session) },
  ]);
}
