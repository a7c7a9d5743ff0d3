// @ts-check
/**
 * Files as they stand in a message: each is a code block whose fence is longer than any in the file.
 */

import { t } from "../base/language.js";
import { toast } from "../overlays/toast.js";

const MAX_CHARS = 100_000;
/** Reading more would only be refused afterwards. */
const MAX_BYTES = 4 * MAX_CHARS;

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
  const language = name.match(/\.([\w+#-]+)$/)?.[1] || "";
  return `${name}:\n${fence}${language}\n${content.replace(/\r\n?/g, "\n").trimEnd()}\n${fence}\n`;
}

/** @param {File} file @returns {Promise<string>} its block, or "" after having said why there is none */
export const blockOf = (file) => read(file).catch(() => unreadable(file));

/** @param {File} file */
async function read(file) {
  const content = file.size > MAX_BYTES ? "" : decode(new Uint8Array(await file.arrayBuffer()));
  if (content !== null && file.size <= MAX_BYTES && content.length <= MAX_CHARS)
    return asBlock(file.name, content);
  const why =
    content === null
      ? t("{name} is not a text file; a character is dropped on the list of sessions.", file)
      : t("{name} is too long for a message.", file);
  toast(why, { serious: true });
  return "";
}

/** @param {File} file such as a folder, or one that is gone */
function unreadable(file) {
  toast(t("{name} cannot be read.", file), { serious: true });
  return "";
}
