// @ts-check
/**
 * A file that somebody brings: a session or chat as JSON or as lines of it, a character as JSON, within a
 * picture or in an archive. Whose it is and what is in it the server finds out; here it is read and its
 * answer told.
 * @import { Bot } from "../types.js"
 */

import { h } from "../base/dom.js";
import { t, tn } from "../base/language.js";
import { post } from "../server/api.js";
import { chooseDialog, dialogButton, openDialog } from "../overlays/dialogs.js";
import { toast, toastError } from "../overlays/toast.js";
import { asBase64, asPicture } from "../base/picture-file.js";

/** As base64 it is a third longer, and the server takes 64 MiB. */
const MAX_BYTES = 47 * 2 ** 20;
/** Of an export of many sessions, which goes to the server in parts; a browser's text is no longer. */
const MAX_TOGETHER = 480 * 2 ** 20;
/** Of a part: a character takes up to three bytes. */
const PART_CHARACTERS = 15 * 2 ** 20;
const PART_SESSIONS = 500;
const PNG = 0x89504e47;
const ZIP = 0x504b0304;
const JPEG = 0xffd8ff;

/** The values of a file of JSON, one a line. @param {string} text @param {string} name */
function lines(text, name) {
  const values = [];
  for (const [at, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    try {
      values.push(JSON.parse(line));
    } catch {
      throw new Error(
        values.length
          ? t("Line {number} of {name} is not JSON.", { number: at + 1, name })
          : t("{name} is not a JSON file.", { name }),
      );
    }
  }
  return values;
}

/** What the server gets of a file, part by part. @param {File} file @returns {Promise<any[]>} */
async function content(file) {
  const tooLarge = (most) =>
    new Error(
      t("{file} has {size} MiB; at most {most} can be imported.", {
        file: file.name,
        size: Math.ceil(file.size / 2 ** 20),
        most: most / 2 ** 20,
      }),
    );
  const start = await file.slice(0, 4).arrayBuffer();
  const kind = start.byteLength === 4 ? new DataView(start).getUint32(0) : 0;
  if (kind === ZIP || kind >>> 8 === JPEG) return [await fromArchive(file)];
  if (file.size > MAX_TOGETHER) throw tooLarge(MAX_TOGETHER);
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (kind === PNG) {
    if (file.size > MAX_BYTES) throw tooLarge(MAX_BYTES);
    const picture = await asPicture(file, file.name).catch(() => ""); // it may hold a character all the same
    return [{ png: asBase64(bytes), picture }];
  }
  const text = new TextDecoder().decode(bytes);
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    data = lines(text, file.name);
  }
  if (Array.isArray(data?.sessions)) return parts(data);
  if (file.size > MAX_BYTES) throw tooLarge(MAX_BYTES);
  return [{ data, picture: await pictureIn(data) }];
}

/** The picture that a character carries as its main one; "" for none. @param {any} data */
async function pictureIn(data) {
  const { uri } = mainIcon(data, /^data:image\/(png|jpeg|webp|gif);base64,/i) || {};
  if (!uri) return "";
  try {
    const [head, base64] = uri.split(",");
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return await asPicture(new Blob([bytes], { type: head.slice(5).split(";")[0] }), "");
  } catch {
    return ""; // the character is good all the same
  }
}

/** Of its pictures with such an address. @param {any} data @param {RegExp} address @returns {any} */
function mainIcon(data, address) {
  const assets = Array.isArray(data?.data?.assets) ? data.data.assets : [];
  const icons = assets.filter((asset) => asset?.type === "icon" && address.test(asset.uri));
  return icons.find(({ name }) => name === "main") || icons[0];
}

/** A character in an archive, and its picture beside it there. @param {File} file */
async function fromArchive(file) {
  const { openCharx } = await import("./charx.js");
  const { name } = file;
  const archive = await openCharx(file).catch(() => {
    throw new Error(t("{name} is damaged: it cannot be unpacked.", { name }));
  });
  if (!archive.card) throw new Error(t("There is no character in {name}.", { name }));
  const [data] = lines(archive.card.replaceAll("\n", " "), `${name} (card.json)`);
  const icon = mainIcon(data, /^embed/);
  const inside = icon && (await archive.picture(icon.uri).catch(() => null));
  const picture = inside ? await asPicture(inside, name).catch(() => "") : await pictureIn(data);
  if (picture && inside) icon.uri = "ccdefault:"; // as of a picture with a character in it
  return { data, picture };
}

/** An export of many sessions, as several of fewer. @param {{sessions: any[]}} data */
function parts(data) {
  const made = [];
  let size = Infinity;
  for (const session of data.sessions) {
    const length = JSON.stringify(session).length;
    if (size + length > PART_CHARACTERS || made.at(-1)?.data.sessions.length >= PART_SESSIONS) {
      made.push({ data: { ...data, sessions: [] } });
      size = 0;
    }
    size += length;
    made.at(-1)?.data.sessions.push(session);
  }
  return made.length ? made : [{ data }];
}

/**
 * Take a file in, after asking whether bots are to be made that are not here.
 * @param {any} body @returns {Promise<{answer: any, unknown: "make" | "keep"} | null>}
 */
async function taken(body) {
  const asked = await post("/api/sessions/import", { ...body, unknown: "ask" });
  if (!asked.unknown_bots) return { answer: asked, unknown: "make" };
  const names = asked.unknown_bots.join(", ");
  const unknown = await chooseDialog(
    t("Make these bots?"),
    t("These in the file are not among your bots: {names}. Make bots of them, or take only what they said; then they cannot go on speaking.", {
      names,
    }),
    [
      ["keep", t("Only what they said")],
      ["make", t("Make them")],
    ],
  );
  return unknown && { answer: await post("/api/sessions/import", { ...body, unknown }), unknown };
}

/**
 * All parts of a file, of which each has the same bots. What came in before a part that fails stays.
 * @param {any[]} bodies @returns {Promise<any>} the answer to the first, with the number of sessions of all
 */
async function takenTogether([first, ...others]) {
  const began = await taken(first);
  if (!began) return null;
  const { answer, unknown } = began;
  try {
    for (const body of others) answer.number += (await post("/api/sessions/import", { ...body, unknown })).number;
  } catch (error) {
    toastError(error);
  }
  return answer;
}

/**
 * @param {File} file
 * @param {{openSession: (session: any) => Promise<void>, reloadBots: () => Promise<void>,
 *   talkTo: (bot: Bot) => void, editBot: (bot: Bot) => void}} page
 */
export async function importFile(file, page) {
  let answer;
  try {
    const bodies = await content(file);
    answer = await takenTogether(bodies.map((body) => ({ ...body, file: file.name })));
  } catch (error) {
    const said = /** @type {any} */ (error);
    if (said.status && said.status !== 400) toastError(said);
    else toast(said.message, { serious: true });
    return;
  }
  if (answer?.bot) {
    await page.reloadBots();
    tellOfBot(answer, page);
  } else if (answer) {
    await page.openSession(answer.session);
    const values = { title: answer.session.title };
    const others = answer.number - 1;
    toast(
      others
        ? tn("Imported “{title}” and one other session.", "Imported “{title}” and {count} other sessions.", others, values)
        : t("Imported “{title}”.", values),
    );
  }
}

/** @param {any} answer @param {{talkTo: (bot: Bot) => void, editBot: (bot: Bot) => void}} page */
function tellOfBot({ bot, name, taken, kept, left }, page) {
  const row = (label, items) =>
    items.length > 0 && h("div", {}, h("dt", { text: label }), h("dd", { dir: "auto", text: items.join(", ") }));
  const dialog = openDialog(
    t("{name} is here", { name: bot.name }),
    [
      name !== bot.name &&
        h("p", {
          class: "help",
          text: t("There is a bot called {name} already; the model could not tell them apart.", { name }),
        }),
      h(
        "dl",
        { class: "facts in-words" },
        row(t("Taken"), taken),
        row(t("Kept for its export"), kept),
        row(t("Not taken"), left),
      ),
    ].filter(Boolean),
    {
      onSubmit: () => {
        dialog.close();
        page.talkTo(bot);
      },
      actions: [
        dialogButton(t("Close"), "ghost", () => dialog.close()),
        dialogButton(t("Edit"), "", () => {
          dialog.close();
          page.editBot(bot);
        }),
        dialogButton(t("New session"), "primary", null),
      ],
    },
  );
}
