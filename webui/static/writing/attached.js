// @ts-check
/**
 * Files as they stand in a message, each in a code block whose fence is longer than any in the file, and as
 * they are shown beside the message box until then.
 * @import { Attached, Place } from "../session/draft-files.js"
 */

import { announce } from "../base/announce.js";
import { byId, h, icon, iconButton } from "../base/dom.js";
import { t } from "../base/language.js";
import { toast } from "../overlays/toast.js";
import { asBase64 } from "../base/picture-file.js";
import { post } from "../server/api.js";
import { keepFiles } from "../session/draft-files.js";

const MAX_CHARS = 100_000;
/** Reading more would only be refused afterwards. */
const MAX_BYTES = 4 * MAX_CHARS;
/** As base64 it is a third longer, and the server takes 28 MiB. */
const MAX_PDF_BYTES = 20 * 2 ** 20;
const PDF = "%PDF-";

/**
 * The text in a file, or null if it holds none: UTF-8, UTF-16 with its mark, or else Windows' Latin letters.
 * @param {Uint8Array} bytes
 */
export function decode(bytes) {
  const mark = (bytes[0] << 8) | bytes[1];
  if (mark === 0xfffe) return new TextDecoder("utf-16le").decode(bytes);
  if (mark === 0xfeff) return new TextDecoder("utf-16be").decode(bytes);
  if (bytes.includes(0)) return null;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

/** A file as it stands in a message. @param {string} name @param {string} content */
export function asBlock(name, content) {
  const runs = content.match(/`+/g) || [];
  const fence = "`".repeat(Math.max(3, ...runs.map((run) => run.length + 1)));
  const ending = name.match(/\.([\w+#-]+)$/)?.[1].toLowerCase() || "";
  const language = ending === "pdf" ? "" : ending; // it is its text by then
  return `${name}:\n${fence}${language}\n${content.replace(/\r\n?/g, "\n").trimEnd()}\n${fence}\n`;
}

const complain = (/** @type {string} */ why) => toast(why, { serious: true });

/** @param {File} file @returns {Promise<Attached | null>} null after having said why */
export async function readFile(file) {
  const { name, size } = file;
  try {
    const isPdf = (await file.slice(0, PDF.length).text()) === PDF || /\.pdf$/i.test(name);
    let content = null;
    if (size <= (isPdf ? MAX_PDF_BYTES : MAX_BYTES)) {
      const bytes = new Uint8Array(await file.arrayBuffer());
      if (isPdf) content = (await post("/api/pdf-text", { pdf: asBase64(bytes), file: name.slice(-200) })).text;
      else content = decode(bytes);
      if (content === null) {
        complain(t("{name} is not a text file; a character is dropped on the list of sessions.", { name }));
        return null;
      }
    }
    if (content !== null && content.length <= MAX_CHARS) return { name, size, block: asBlock(name, content) };
    complain(t("{name} is too long for a message.", { name }));
  } catch (error) {
    const said = error?.status ? error.message : ""; // else a folder, one that is gone, or no server
    complain(said || t("{name} cannot be read.", { name }));
  }
  return null;
}

/**
 * Add those that were read, as far as the message has room for them.
 * @param {Place} place @param {(Attached | null)[]} read @param {number} charactersLeft
 * @returns {boolean} whether all of them are in
 */
export function addFiles(place, read, charactersLeft) {
  let left = charactersLeft - place.files.reduce((sum, { block }) => sum + block.length + 1, 0);
  const added = [];
  for (const file of read) {
    if (file && file.block.length < left) {
      added.push(file);
      left -= file.block.length + 1;
    } else if (file) complain(t("{name} is too long for a message.", { name: file.name }));
  }
  place.files = [...place.files, ...added];
  for (const { name } of added) announce(t("{name} is attached.", { name }));
  if (added.length && !keepFiles(place))
    toast(t("This browser has no room to keep the files; they are there until the page is left."));
  return added.length === read.length;
}

/** @param {number} bytes */
function sizeText(bytes) {
  const [value, unit] =
    bytes < 1000 ? [bytes, "byte"] : bytes < 1e6 ? [bytes / 1000, "kilobyte"] : [bytes / 1e6, "megabyte"];
  const digits = { maximumFractionDigits: value < 10 ? 1 : 0 };
  const unitDisplay = unit === "byte" ? "long" : "short";
  const { lang } = document.documentElement;
  return new Intl.NumberFormat(lang, { style: "unit", unit, unitDisplay, ...digits }).format(value);
}

/**
 * Show a session's files above what is typed.
 * @param {HTMLFormElement} form @param {Place} place @param {() => void} show it again
 */
export function showFiles(form, place, show) {
  const text = byId("text");
  const old = form.querySelector(".attached");
  const had = old ? [...old.querySelectorAll("button")].indexOf(/** @type {any} */ (document.activeElement)) : -1;
  old?.remove();
  const buttons = place.files.map((file) =>
    iconButton("x", t("Remove {name}", { name: file.name }), () => {
      place.files = place.files.filter((one) => one !== file);
      keepFiles(place);
      announce(t("{name} is removed.", { name: file.name }));
      show();
    }),
  );
  const files = place.files.map(({ name, size }, at) =>
    h(
      "li",
      { class: "attached-file" },
      icon("paperclip"),
      h("span", { class: "attached-name", title: name, dir: "auto", text: name }),
      h("span", { class: "attached-size", text: sizeText(size) }),
      buttons[at],
    ),
  );
  const coming = place.reading.map((name) =>
    h("li", { class: "attached-file is-coming" }, h("span", { class: "attached-name", text: t("Reading {name}…", { name }) })),
  );
  if (files.length + coming.length) {
    const list = h("ul", { class: "attached", role: "list", "aria-label": t("Attached files") }, ...files, ...coming);
    text.before(list);
    list.scrollTop = list.scrollHeight;
  }
  if (had >= 0) (buttons[Math.min(had, buttons.length - 1)] || text).focus();
}
