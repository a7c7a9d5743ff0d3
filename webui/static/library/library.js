// @ts-check
/**
 * What can be done with any session of the list: rename, duplicate, delete with undo, export, print, import,
 *   search.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { byId, h } from "../base/dom.js";
import { t } from "../base/language.js";
import { draftKey, recall, remember } from "../base/storage.js";
import { get, patch, post, remove } from "../server/api.js";
import { forgetFiles } from "../session/draft-files.js";
import { forgetEdits } from "../session/edit-drafts.js";
import { forgetUnsaved } from "../session/unsaved.js";
import { forgetWhisper } from "../session/whisper.js";
import { toast, toastError } from "../overlays/toast.js";

/** Save what the server gives there. @param {string} href */
export function download(href) {
  const link = h("a", { href, download: true });
  document.body.append(link);
  link.click();
  link.remove();
}

/** The trash has a session for as long. */
const TRASH_MS = 30 * 86_400_000;

/** What this browser keeps of sessions that are gone: when they went. @returns {Record<string, number>} */
function gone() {
  try {
    return JSON.parse(recall("gone", "{}"));
  } catch {
    return {}; // written by something else
  }
}

/** Forget what was typed for sessions. @param {string[]} ids */
export function forget(ids) {
  for (const id of ids) {
    remember(draftKey(id), "");
    forgetFiles(id);
    forgetEdits(id);
    forgetUnsaved(id);
    forgetWhisper(id);
  }
}

/**
 * @param {Store} store
 * @param {Room} room
 * @param {{open: (id: string) => Promise<void>, openNew: () => Promise<void>,
 *   editBot: (bot: any) => void, reloadBots: () => Promise<void>}} page
 */
export function createLibrary(store, room, page) {
  let asked = 0;
  /** What is searched for; the store has it once its answer is there: until then the list is another's. */
  let query = "";

  /** Read the list again; a slow answer never overtakes a newer one. */
  async function reload() {
    const number = (asked += 1);
    const searched = query;
    const body = await get(`/api/sessions${query ? `?q=${encodeURIComponent(query)}` : ""}`).catch(toastError);
    if (!body || number !== asked) return;
    store.set({ query: searched, sessions: body.sessions, problems: body.problems || [], words: body.words || [] });
  }

  /** @param {Iterable<File>} files */
  async function take(files) {
    const { importFile } = await import("./importing.js");
    for (const file of files) await importFile(file, { ...page, openSession, talkTo });
  }

  /** @param {{id: string}} session */
  async function openSession({ id }) {
    await reload();
    await page.open(id);
  }

  /** @param {{id: string}} bot */
  async function talkTo({ id }) {
    await page.openNew();
    room.change({ bots: [{ id, muted: false }] });
  }

  const picker = h("input", {
    type: "file",
    accept: ".json,.jsonl,.png,.charx,.jpg,.jpeg,application/json,image/png,image/jpeg",
    multiple: true,
    class: "visually-hidden",
    tabindex: "-1",
    "aria-hidden": "true",
    on: {
      async change() {
        const files = [...picker.files];
        picker.value = "";
        await take(files);
      },
    },
  });
  document.body.append(picker);
  byId("left").addEventListener("drop", (event) => {
    const files = [...event.dataTransfer.files]; // gone once this is over
    if (!files.length) return;
    event.preventDefault(); // elsewhere a file is put into the message
    take(files);
  });

  return {
    reload,
    import: () => picker.click(),

    /** @param {string} text */
    search(text) {
      query = text;
      return reload();
    },

    /** @param {{id: string | null, title: string, revision: number}} session */
    async rename(session) {
      const { promptDialog } = await import("../overlays/dialogs.js");
      const title = await promptDialog(t("Rename session"), t("Title"), session.title, t("Rename"));
      if (!title || title === session.title) return;
      if (session.id === store.state.session?.id) {
        room.change({ title });
        await room.flushPatch();
      } else {
        await patch(`/api/sessions/${session.id}`, { revision: session.revision, title }).catch(toastError);
      }
      await reload();
    },

    /** @param {{id: string | null}} session */
    async duplicate(session) {
      if (session.id === store.state.session?.id) await room.flushPatch();
      const body = await post(`/api/sessions/${session.id}/duplicate`).catch(toastError);
      if (!body) return;
      await reload();
      await page.open(body.session.id);
    },

    /** @param {{id: string | null, title: string}} session */
    async remove(session) {
      const current = session.id === store.state.session?.id;
      const body = await remove(`/api/sessions/${session.id}`).catch(toastError);
      if (!body) return;
      if (current) await page.openNew();
      await reload();
      toast(t("Deleted “{title}”.", { title: session.title }), {
        action: t("Undo"),
        onAction: async () => {
          const restored = await post("/api/sessions/restore", { undo: body.undo }).catch(toastError);
          if (!restored) return;
          await reload();
          if (current) await page.open(restored.session.id);
        },
      });
    },

    /** @param {{id: string | null}} session @param {string} format as the server calls it */
    exported(session, format) {
      download(`/api/sessions/${session.id}/export?format=${format}`);
    },

    /** @param {{id: string | null}} session */
    async print(session) {
      if (session.id && session.id !== store.state.session?.id) await page.open(session.id);
      window.print();
    },

    /** Sessions are gone; what was typed for them comes back with them. @param {string[]} ids */
    went(ids) {
      if (!ids.length) return;
      const now = Date.now();
      const all = { ...gone(), ...Object.fromEntries(ids.map((id) => [id, now])) };
      const old = Object.keys(all).filter((id) => now - all[id] > TRASH_MS);
      forget(old.filter((id) => !store.state.sessions.some((one) => one.id === id))); // else it is back
      for (const id of old) delete all[id];
      remember("gone", JSON.stringify(all));
    },
  };
}

/** @typedef {ReturnType<typeof createLibrary>} Library */
