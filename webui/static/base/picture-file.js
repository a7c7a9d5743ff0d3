// @ts-check
/**
 * A picture of a bot, of any file that the browser reads: drawn anew, small and square, so that nothing of
 * the file remains but how it looks.
 */

import { h } from "./dom.js";
import { t } from "./language.js";

/** What the server takes. */
const MAX_BYTES = 300_000;
/** Pixels; the first that fits. */
const SIDES = [256, 192, 128];
/** Of what does not fit into the square, the share that is cut off above: faces stand high. */
const ABOVE = 0.2;
const SLICE = 0x8000;

/** @param {Uint8Array} bytes */
export function asBase64(bytes) {
  const parts = [];
  for (let at = 0; at < bytes.length; at += SLICE)
    parts.push(String.fromCharCode(...bytes.subarray(at, at + SLICE)));
  return btoa(parts.join(""));
}

/** @param {Blob} file @param {string} name @returns {Promise<string>} a PNG file in base64 */
export async function asPicture(file, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(t("{name} is no picture that this browser can read.", { name }));
  }
  const size = Math.min(bitmap.width, bitmap.height);
  for (const side of SIDES) {
    const canvas = h("canvas", { width: side, height: side });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    const [left, top] = [(bitmap.width - size) / 2, (bitmap.height - size) * ABOVE];
    context.drawImage(bitmap, left, top, size, size, 0, 0, side, side);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    if (blob && blob.size <= MAX_BYTES) return asBase64(new Uint8Array(await blob.arrayBuffer()));
  }
  throw new Error(t("{name} cannot be made small enough.", { name }));
}
