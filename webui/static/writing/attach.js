// @ts-check
/**
 * Files beside the message that is being typed: chosen, dropped anywhere on the page, or pasted. They belong
 * to the draft and are kept with it. attached.js, which comes with the first one, reads and shows them.
 * @import { Place } from "../session/draft-files.js"
 */

import { h } from "../base/dom.js";
import { forgetFiles, hasUnread, keepFiles, recallFiles } from "../session/draft-files.js";

/** This long after it was to be left the page is still there. */
const STAYED_MS = 3000;

/**
 * @param {HTMLFormElement} form marked while a file is dragged over the page
 * @param {() => number} charactersLeft in the message, beside what is typed
 */
export function createAttach(form, charactersLeft) {
  let place = recallFiles(undefined);
  /** Those left while something was under way. @type {Set<Place>} */
  const busy = new Set();
  /** Files that are given later stand later, however quickly they are read. */
  let before = Promise.resolve(true);
  let isShown = false;

  function show() {
    if (!isShown && !place.files.length && !place.reading.length) return;
    isShown = true;
    import("./attached.js").then(({ showFiles }) => showFiles(form, place, show));
  }

  /** @param {Iterable<File>} list */
  function take(list) {
    const given = [...list]; // the list itself is emptied
    const here = place;
    if (here.id === undefined || !given.length) return;
    const isFirst = !here.reading.length;
    busy.add(here);
    here.reading.push(...given.map(({ name }) => name));
    show();
    let leaving = false;
    const leave = () => {
      leaving = true;
    };
    addEventListener("beforeunload", leave);
    const kept = import("./unread.js").then(({ keepUnread }) => keepUnread(here.id, given));
    const coming = import("./attached.js").then(async ({ readFile, addFiles }) => {
      const read = await Promise.all(given.map(readFile));
      return () => addFiles(here, read, here === place ? charactersLeft() : Infinity);
    });
    before = before.then(async (were) => {
      const add = await coming.catch(() => () => false);
      if (leaving) await new Promise((resolve) => setTimeout(resolve, STAYED_MS)); // what a reload ended is read then
      removeEventListener("beforeunload", leave);
      here.reading.splice(0, given.length);
      const all = add();
      Promise.all([kept, import("./unread.js")]).then(([key, { dropUnread }]) => dropUnread(key));
      if (here === place) show();
      return all && (isFirst || were);
    });
  }

  const input = h("input", {
    type: "file",
    multiple: true,
    class: "visually-hidden",
    tabindex: "-1",
    "aria-hidden": "true",
    on: {
      change() {
        take(input.files);
        input.value = "";
      },
    },
  });
  const mark = (over) => form.classList.toggle("is-target", over);
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
  form.addEventListener("paste", (event) => {
    const { clipboardData } = /** @type {ClipboardEvent} */ (event);
    if (!clipboardData?.files.length || clipboardData.types.includes("text/plain")) return;
    event.preventDefault();
    take(clipboardData.files);
  });

  return {
    input: /** @type {HTMLInputElement} */ (input),
    /** As they stand in the message. */
    text: () => place.files.map(({ block }) => block).join("\n"),
    /** Whether all that was given went in; null while nothing is being read. */
    reading: () => (place.reading.length ? before : null),

    /** For whatever takes them as a part of what is typed. */
    takeOut() {
      const taken = place.files.map(({ block }) => block).join("\n");
      place.files = [];
      keepFiles(place);
      show();
      return taken;
    },

    /**
     * Another session is shown, or this one has got an id.
     * @param {string | null | undefined} id @param {boolean} becameSaved
     */
    enter(id, becameSaved) {
      if (becameSaved) {
        forgetFiles(null);
        place.id = id;
        keepFiles(place);
        return;
      }
      for (const one of busy) if (!one.sending.length && !one.reading.length) busy.delete(one);
      const here = (place = [...busy].find((one) => one.id === id) || recallFiles(id));
      show();
      if (hasUnread(id))
        import("./unread.js")
          .then(({ takeUnread }) => takeUnread(id))
          .then((files) => here === place && take(files));
    },

    /** They go into a message; what is returned is called when that has arrived, or has not. */
    send() {
      const here = place;
      [here.sending, here.files] = [here.files, []];
      busy.add(here);
      show();
      return (/** @type {boolean} */ worked) => {
        if (!worked) here.files = [...here.sending, ...here.files];
        here.sending = [];
        keepFiles(here);
        if (here === place) show();
      };
    },
  };
}
