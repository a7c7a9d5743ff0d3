// @ts-check
/**
 * Sessions are pinned, put into folders, tagged, exported and deleted, one or many; and what can be done with
 * a folder or a tag. What a session is in, it says itself: a folder without sessions is none.
 * @import { Store } from "../session/store.js"
 * @import { Summary } from "../types.js"
 * @import { Page } from "./session-list.js"
 */

import { byId, h } from "../base/dom.js";
import { t, tn } from "../base/language.js";
import { get, patch, post, remove } from "../server/api.js";
import { confirmDialog, dialogButton, openDialog, promptDialog } from "../overlays/dialogs.js";
import { openMenu } from "../overlays/menu.js";
import { toast, toastError } from "../overlays/toast.js";
import { closedFolders, rememberClosed } from "./closed-folders.js";

/** In one request: a thousand are possible, but then nothing is seen of it for long. */
const AT_ONCE = 200;

/**
 * Ask for something for each of many, part by part. What is refused is told; nothing is if all is well.
 * @template Answer
 * @param {string[]} ids @param {(ids: string[]) => Promise<Answer & {failed: {message: string}[]}>} ask
 * @returns {Promise<Answer[]>} of the parts that were answered
 */
export async function inParts(ids, ask) {
  const answers = [];
  const failed = [];
  try {
    for (let at = 0; at < ids.length; at += AT_ONCE) {
      const answer = await ask(ids.slice(at, at + AT_ONCE));
      answers.push(answer);
      failed.push(...answer.failed);
    }
  } catch (error) {
    toastError(error);
  }
  if (failed.length)
    toast(
      tn("One was left as it is: {message}", "{count} were left as they are, the first because: {message}", failed.length, {
        message: failed[0].message,
      }),
      { serious: true },
    );
  return answers;
}

/**
 * @param {Store} store @param {Page} page @param {Summary[]} sessions
 * @param {{pinned?: boolean, folder?: string, add_tags?: string[], remove_tags?: string[]}} changes
 */
export async function arrange(store, page, sessions, changes) {
  const ids = sessions.map(({ id }) => id);
  const isShown = ids.includes(store.state.session?.id || "");
  if (isShown) await page.room.flushPatch();
  await inParts(ids, (part) => patch("/api/sessions", { sessions: part, ...changes }));
  await Promise.all([page.reload(), isShown && page.room.refresh()]);
}

/** @param {Store} store @param {Page} page @param {Summary[]} sessions */
export async function removeTogether(store, page, sessions) {
  if (sessions.length === 1) return page.remove(sessions[0]);
  const shown = store.state.session?.id || "";
  const answers = await inParts(
    sessions.map(({ id }) => id),
    (part) => remove("/api/sessions", { sessions: part }),
  );
  /** @type {Record<string, string>} */
  const undo = Object.assign({}, ...answers.map((answer) => answer.undo));
  if (undo[shown]) await page.openNew();
  await page.reload();
  const tokens = Object.values(undo);
  if (!tokens.length) return;
  toast(tn("Deleted one session.", "Deleted {count} sessions.", tokens.length), {
    action: t("Undo"),
    onAction: async () => {
      await inParts(tokens, (part) => post("/api/trash/restore", { undo: part }));
      await page.reload();
      if (undo[shown]) page.open(shown);
    },
  });
}

/** One file of all of them, which can be imported again. @param {Summary[]} sessions */
export async function exportTogether(sessions) {
  const ids = sessions.map(({ id }) => id);
  const data = await post("/api/sessions/export", { sessions: ids }).catch(toastError);
  if (!data) return;
  const text = [`{"parlor_export": ${data.parlor_export},\n "sessions": [`];
  data.sessions.forEach((session, at) => text.push(at ? ",\n" : "\n", JSON.stringify(session)));
  text.push(`],\n "bots": ${JSON.stringify(data.bots)}}\n`);
  const url = URL.createObjectURL(new Blob(text, { type: "application/json" }));
  const link = h("a", { href: url, download: t("Parlor, {count} sessions", { count: data.sessions.length }) + ".json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * Into which folder sessions go.
 * @param {HTMLElement} anchor @param {Store} store @param {Page} page @param {Summary[]} sessions
 */
export async function openFolders(anchor, store, page, sessions) {
  const known = await get("/api/folders").catch(toastError);
  if (!known) return;
  const into = (folder) => arrange(store, page, sessions, { folder });
  const isAll = (name) => sessions.every((session) => (session.folder || "") === name);
  openMenu(anchor, t("Folder"), [
    { label: t("None"), checked: isAll(""), onSelect: () => into("") },
    ...known.folders.map(({ name }) => ({ label: name, checked: isAll(name), onSelect: () => into(name) })),
    "line",
    {
      label: t("New folder"),
      icon: "plus",
      onSelect: async () => {
        const name = await promptDialog(t("New folder"), t("Name"), "", t("Create"), tooLong);
        if (name) await into(name);
      },
    },
  ]);
}

const MAX_FOLDER = 60;
const MAX_TAG = 40;
const MAX_TAGS = 20;

/** @param {string} name */
const tooLong = (name) =>
  name.length > MAX_FOLDER ? t("The name has more than {most} characters.", { most: MAX_FOLDER }) : "";

/** @param {string} name @param {HTMLElement} anchor @param {Page} page */
export function openFolderMenu(name, anchor, page) {
  const rename = async (now) => {
    if (!(await patch("/api/folders", { folder: name, name: now }).catch(toastError))) return;
    const closed = closedFolders();
    if (closed.includes(name)) rememberClosed([...closed.filter((one) => one !== name), ...(now ? [now] : [])]);
    await page.reload();
    await page.room.refresh();
  };
  openMenu(anchor, t("Actions for the folder {name}", { name }), [
    {
      label: t("Rename"),
      icon: "pencil",
      onSelect: async () => {
        const now = await promptDialog(t("Rename folder"), t("Name"), name, t("Rename"), tooLong);
        if (now && now !== name) await rename(now);
      },
    },
    {
      label: t("Remove the folder"),
      icon: "x",
      help: t("Its sessions stay."),
      onSelect: async () => {
        const sure = await confirmDialog(
          t("Remove the folder?"),
          t("The sessions in “{name}” stay; they are in no folder then.", { name }),
          t("Remove"),
        );
        if (sure) await rename("");
      },
    },
  ]);
}

/** Show the sessions of a tag, or of all again. @param {HTMLElement} anchor @param {Store} store
 * @param {Page} page */
export async function openTagMenu(anchor, store, page) {
  const known = await get("/api/folders").catch(toastError);
  if (!known) return;
  if (!known.tags.length) return page.reload(); // the last one has just gone, and so does the button
  const search = /** @type {HTMLInputElement} */ (byId("search"));
  const asked = store.state.query.split(/\s+/).filter(Boolean);
  const item = ({ name, number }) => {
    const word = `#${name}`;
    const others = asked.filter((one) => one.toLowerCase() !== word.toLowerCase());
    const checked = others.length < asked.length;
    return {
      label: word,
      help: tn("{count} session", "{count} sessions", number),
      checked,
      onSelect: () => {
        search.value = (checked ? others : [...asked, word]).join(" ");
        page.search(search.value);
      },
    };
  };
  openMenu(anchor, t("Tags"), known.tags.map(item));
}

/** The words of a text as tags, each once. @param {string} text @returns {string[]} */
function tagsIn(text) {
  const words = text.split(/[\s,#]+/).filter(Boolean);
  return words.filter((word, at) => words.findIndex((one) => isSame(one, word)) === at);
}

/** @param {string} a @param {string} b */
const isSame = (a, b) => a.toLowerCase() === b.toLowerCase();

/** Change the tags that all of these sessions have. @param {Store} store @param {Page} page
 * @param {Summary[]} sessions */
export async function openTags(store, page, sessions) {
  const known = await get("/api/folders").catch(toastError);
  if (!known) return;
  const [first, ...rest] = sessions.map((session) => session.tags || []);
  const common = first.filter((tag) => rest.every((tags) => tags.some((one) => isSame(one, tag))));
  const input = h("input", {
    type: "text",
    class: "text-input",
    dir: "auto",
    autocomplete: "off",
    autocapitalize: "none",
    "data-autofocus": true,
    on: { input: show },
  });
  input.value = common.map((tag) => `${tag} `).join("");
  const chips = known.tags.map(({ name }) =>
    h("button", {
      type: "button",
      class: "button small tag-chip",
      text: `#${name}`,
      on: {
        click: () => {
          const tags = tagsIn(input.value);
          const others = tags.filter((tag) => !isSame(tag, name));
          input.value = (others.length < tags.length ? others : [...tags, name]).map((tag) => `${tag} `).join("");
          show();
        },
      },
    }),
  );
  const wrong = h("p", { class: "help wrong", role: "alert", hidden: true });

  function show() {
    const tags = tagsIn(input.value);
    known.tags.forEach(({ name }, at) =>
      chips[at].setAttribute("aria-pressed", String(tags.some((tag) => isSame(tag, name)))),
    );
    wrong.hidden = true;
  }

  const dialog = openDialog(
    sessions.length === 1 ? t("Tags") : tn("Tags of one session", "Tags of {count} sessions", sessions.length),
    [
      h(
        "label",
        { class: "stacked" },
        h("span", { class: "label", text: t("Words, with a space between") }),
        input,
      ),
      chips.length > 0 && h("div", { class: "tag-chips", role: "group", "aria-label": t("Tags that there are") }, ...chips),
      h("p", {
        class: "help",
        text:
          sessions.length === 1
            ? t("Search for #word to find a tag's sessions.")
            : t("These are the tags that all of them have; others of each stay."),
      }),
    ].filter(Boolean),
    {
      onSubmit: async () => {
        const tags = tagsIn(input.value);
        const long = tags.find((tag) => tag.length > MAX_TAG);
        wrong.textContent = long
          ? t("“{tag}” has more than {most} characters.", { tag: long, most: MAX_TAG })
          : tags.length > MAX_TAGS
            ? t("A session can have {most} tags.", { most: MAX_TAGS })
            : "";
        wrong.hidden = !wrong.textContent;
        if (wrong.textContent) return;
        dialog.close();
        await arrange(store, page, sessions, {
          add_tags: tags,
          remove_tags: common.filter((tag) => !tags.some((one) => isSame(one, tag))),
        });
      },
      actions: [wrong, dialogButton(t("Cancel"), "ghost", () => dialog.close()), dialogButton(t("Save"), "primary", null)],
    },
  );
  show();
  input.setSelectionRange(input.value.length, input.value.length);
}
