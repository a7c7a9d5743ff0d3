// @ts-check
/**
 * A character in a ZIP file: a .charx, or a JPEG picture with one behind it, as RisuAI writes them. Only the
 * card and the picture that is asked for are read and unpacked, by the browser, up to a bound.
 * https://github.com/kwaroran/character-card-spec-v3/blob/f3a86af019fbd99f788f7a1155f399655b34ab35/SPEC_V3.md
 * https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3
 */

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;
const END_BYTES = 22;
const MAX_COMMENT = 0xffff;
const MAX_DIRECTORY = 8 * 2 ** 20;
const MAX_CARD = 16 * 2 ** 20;
const MAX_PICTURE = 64 * 2 ** 20;
const CARD = "card.json";
const WITHIN = /^embed{1,2}ed:\/\//; // the specification spells it with one d

/** @typedef {{method: number, packed: number, size: number, at: number, secret: boolean}} Entry */

/** @param {Blob} file @param {number} from @param {number} to */
const view = async (file, from, to) => new DataView(await file.slice(from, to).arrayBuffer());

const damaged = () => new RangeError("damaged");

/**
 * What is in the archive at the end of a file, by name; null if there is none.
 * @param {Blob} file @returns {Promise<Map<string, Entry> | null>}
 */
async function directory(file) {
  const tail = await view(file, Math.max(0, file.size - END_BYTES - MAX_COMMENT), file.size);
  let end = tail.byteLength - END_BYTES;
  while (end >= 0 && tail.getUint32(end, true) !== END) end -= 1;
  if (end < 0) return null;
  const size = tail.getUint32(end + 12, true);
  const start = file.size - tail.byteLength + end - size;
  const before = start - tail.getUint32(end + 16, true); // what stands before the archive, as a picture may
  if (start < 0 || before < 0 || size > MAX_DIRECTORY) throw damaged();
  const list = await view(file, start, start + size);
  const entries = new Map();
  for (let at = 0; at < size; ) {
    if (list.getUint32(at, true) !== ENTRY) throw damaged();
    const length = list.getUint16(at + 28, true);
    const name = new TextDecoder().decode(new Uint8Array(list.buffer, at + 46, length));
    entries.set(name, {
      secret: (list.getUint16(at + 8, true) & 1) === 1,
      method: list.getUint16(at + 10, true),
      packed: list.getUint32(at + 20, true),
      size: list.getUint32(at + 24, true),
      at: before + list.getUint32(at + 42, true),
    });
    at += 46 + length + list.getUint16(at + 30, true) + list.getUint16(at + 32, true);
  }
  return entries;
}

/** One of them, unpacked. @param {Blob} file @param {Entry} entry @param {number} most bytes */
async function unpacked(file, { secret, method, packed, size, at }, most) {
  const head = await view(file, at, at + 30);
  if (head.getUint32(0, true) !== LOCAL || secret || size > most) throw damaged();
  const start = at + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const data = file.slice(start, start + packed);
  if (method === 0) return data;
  if (method !== 8) throw damaged();
  const parts = [];
  let length = 0;
  const reader = data.stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts);
    length += value.length;
    if (length > most) {
      await reader.cancel();
      throw damaged(); // whatever size it said it had
    }
    parts.push(value);
  }
}

/**
 * The card in the file as text, "" if there is none, and the pictures beside it by their addresses in it.
 * @param {Blob} file
 * @returns {Promise<{card: string, picture: (uri: string) => Promise<Blob | null>}>} rejects if it is damaged
 */
export async function openCharx(file) {
  const entries = await directory(file);
  const card = entries?.get(CARD);
  return {
    card: card ? await (await unpacked(file, card, MAX_CARD)).text() : "",
    async picture(uri) {
      const entry = WITHIN.test(uri) && entries?.get(uri.replace(WITHIN, ""));
      return entry ? unpacked(file, entry, MAX_PICTURE) : null;
    },
  };
}
