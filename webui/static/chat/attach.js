// @ts-check
/**
 * Text files that are put into the message: chosen, dropped anywhere on the page, or pasted.
 */

import { h } from "../base/dom.js";

/**
 * Where files are chosen; those that are dropped or pasted come the same way.
 * @param {HTMLElement} target marked while a file is dragged over the page
 * @param {(text: string) => void} insert
 */
export function createAttach(target, insert) {
  /** Files that are given later stand later, however quickly they are read. */
  let before = Promise.resolve();

  /** @param {FileList} files */
  function take(files) {
    const given = [...files]; // the list itself is emptied
    const reading = import("./attached.js").then(({ blockOf }) => Promise.all(given.map(blockOf)));
    before = before.then(async () => {
      const text = (await reading).filter(Boolean).join("\n");
      if (text) insert(text);
    });
    return before;
  }

  const input = h("input", {
    type: "file",
    multiple: true,
    class: "visually-hidden",
    tabindex: "-1",
    "aria-hidden": "true",
    on: {
      async change() {
        await take(input.files);
        input.value = "";
      },
    },
  });
  const mark = (over) => target.classList.toggle("is-target", over);
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // else the browser would leave the page for the file
    mark(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) mark(false);
  });
  document.addEventListener("drop", (event) => {
    mark(false);
    if (!hasFiles(event) || event.defaultPrevented) return;
    event.preventDefault();
    if (!document.querySelector("dialog[open]")) take(/** @type {DataTransfer} */ (event.dataTransfer).files);
  });
  target.addEventListener("paste", (event) => {
    const { clipboardData } = /** @type {ClipboardEvent} */ (event);
    if (!clipboardData?.files.length || clipboardData.types.includes("text/plain")) return;
    event.preventDefault();
    take(clipboardData.files);
  });
  return /** @type {HTMLInputElement} */ (input);
}
