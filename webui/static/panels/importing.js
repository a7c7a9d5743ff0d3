// @ts-check
/**
 * A file that somebody brings: a session or chat as JSON or as lines of it, a character as JSON or within a
 * picture. Whose it is and what is in it the server finds out; here it is read and its answer told.
 * @import { Bot } from "../types.js"
 */

import { h } from "../base/dom.js";
import { plural } from "../base/format.js";
import { post } from "../server/api.js";
import { chooseDialog, dialogButton, openDialog } from "../overlays/dialogs.js";
import { toast, toastError } from "../overlays/toast.js";
import { asBase64, asPicture } from "./picture-file.js";

/** As base64 it is a third longer, and the server takes 64 MiB. */
const MAX_BYTES = 47 * 2 ** 20;
const PNG = 0x89504e47;
/** The values of a file of JSON, one a line. @param {string} text @param {string} name */
function lines(text, name) {
  const values = [];
  for (const [at, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    try {
      values.push(JSON.parse(line));
    } catch {
      throw new Error(values.length ? `Line ${at + 1} of ${name} is not JSON.` : `${name} is not a JSON file.`);
    }
  }
  return values;
}

/** What the server gets of a file. @param {File} file */
async function content(file) {
  if (file.size > MAX_BYTES)
    throw new Error(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MiB; at most 47 can be imported.`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (bytes.length > 8 && new DataView(bytes.buffer).getUint32(0) === PNG) {
    const picture = await asPicture(file, file.name).catch(() => ""); // it may hold a character all the same
    return { png: asBase64(bytes), picture };
  }
  const text = new TextDecoder().decode(bytes);
  try {
    return { data: JSON.parse(text) };
  } catch {
    return { data: lines(text, file.name) };
  }
}

/**
 * Take a file in, after asking whether bots are to be made that are not here.
 * @param {any} body @returns {Promise<any>} the server's answer, or null
 */
async function taken(body) {
  const asked = await post("/api/sessions/import", { ...body, unknown: "ask" });
  if (!asked.unknown_bots) return asked;
  const names = asked.unknown_bots.join(", ");
  const unknown = await chooseDialog(
    "Make these bots?",
    `The file has bots that are not here: ${names}. Without them what they said comes in, and nobody new can speak.`,
    [
      ["keep", "Only what they said"],
      ["make", "Make them"],
    ],
  );
  return unknown && post("/api/sessions/import", { ...body, unknown });
}

/**
 * @param {File} file
 * @param {{openSession: (session: any) => Promise<void>, reloadBots: () => Promise<void>,
 *   talkTo: (bot: Bot) => void, editBot: (bot: Bot) => void}} page
 */
export async function importFile(file, page) {
  let answer;
  try {
    answer = await taken({ ...(await content(file)), file: file.name });
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
    const others = answer.number - 1;
    toast(`Imported “${answer.session.title}”${others ? ` and ${plural(others, "other session")}` : ""}.`);
  }
}

/** @param {any} answer @param {{talkTo: (bot: Bot) => void, editBot: (bot: Bot) => void}} page */
function tellOfBot({ bot, name, taken, kept, left }, page) {
  const row = (label, items) =>
    items.length > 0 && h("div", {}, h("dt", { text: label }), h("dd", { dir: "auto", text: items.join(", ") }));
  const dialog = openDialog(
    `${bot.name} is here`,
    [
      name !== bot.name &&
        h("p", { class: "help", text: `There is a bot called ${name} already; the model could not tell them apart.` }),
      h(
        "dl",
        { class: "facts in-words" },
        row("Taken", taken),
        row("Kept for its export", kept),
        row("Not taken", left),
      ),
    ].filter(Boolean),
    {
      onSubmit: () => {
        dialog.close();
        page.talkTo(bot);
      },
      actions: [
        dialogButton("Close", "ghost", () => dialog.close()),
        dialogButton("Edit", "", () => {
          dialog.close();
          page.editBot(bot);
        }),
        dialogButton("New session", "primary", null),
      ],
    },
  );
}
