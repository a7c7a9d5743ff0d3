// @ts-check
/**
 * What can be done with any session of the list: rename, duplicate, delete with undo, export, print, import,
 *   search.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h } from "../base/dom.js";
import { draftKey, remember } from "../base/storage.js";
import { get, patch, post, remove } from "../server/api.js";
import { forgetEdits } from "../session/edit-drafts.js";
import { forgetUnsaved } from "../session/unsaved.js";
import { toast, toastError } from "../overlays/toast.js";

/**
 * @param {Store} store
 * @param {Room} room
 * @param {{open: (id: string) => Promise<void>, openNew: () => Promise<void>}} page
 */
export function createLibrary(store, room, page) {
  let asked = 0;

  /** Read the list again; a slow answer never overtakes a newer one. */
  async function reload() {
    const number = (asked += 1);
    const { query } = store.state;
    const body = await get(`/api/sessions${query ? `?q=${encodeURIComponent(query)}` : ""}`).catch(toastError);
    if (body && number === asked) store.set({ sessions: body.sessions, problems: body.problems || [] });
  }

  const picker = h("input", {
    type: "file",
    accept: ".json,application/json",
    class: "visually-hidden",
    tabindex: "-1",
    "aria-hidden": "true",
  });
  document.body.append(picker);
  picker.addEventListener("change", async () => {
    const [file] = picker.files;
    picker.value = "";
    if (!file) return;
    let data;
    try {
      data = JSON.parse(await file.text());
    } catch {
      toast(`${file.name} is not a JSON file.`, { serious: true });
      return;
    }
    const body = await imported({ data, file: file.name }).catch((error) => {
      if (error.status !== 400) toastError(error);
      else toast(`${file.name} is no session that Parlor can read.`, { serious: true });
    });
    if (!body) return;
    await reload();
    await page.open(body.session.id);
    toast(`Imported “${body.session.title}”.`);
  });

  /** Take a file in, after asking whether bots are to be made that are not here. @param {any} file */
  async function imported(file) {
    const asked = await post("/api/sessions/import", { ...file, unknown: "ask" });
    if (asked.session) return asked;
    const { chooseDialog } = await import("../overlays/dialogs.js");
    const names = asked.unknown_bots.join(", ");
    const unknown = await chooseDialog(
      "Make these bots?",
      `The file has bots that are not here: ${names}. Without them what they said comes in, and nobody new can speak.`,
      [
        ["keep", "Only what they said"],
        ["make", "Make them"],
      ],
    );
    return unknown && post("/api/sessions/import", { ...file, unknown });
  }

  return {
    reload,
    import: () => picker.click(),

    /** @param {string} query */
    search(query) {
      store.set({ query });
      return reload();
    },

    /** @param {{id: string | null, title: string, revision: number}} session */
    async rename(session) {
      const { promptDialog } = await import("../overlays/dialogs.js");
      const title = await promptDialog("Rename session", "Title", session.title, "Rename");
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
      toast(`Deleted “${session.title}”.`, {
        action: "Undo",
        onAction: async () => {
          const restored = await post("/api/sessions/restore", { undo: body.undo }).catch(toastError);
          if (!restored) return;
          await reload();
          if (current) await page.open(restored.session.id);
        },
      });
    },

    /** @param {{id: string | null}} session @param {"json" | "markdown" | "html"} format */
    exported(session, format) {
      const link = h("a", { href: `/api/sessions/${session.id}/export?format=${format}`, download: true });
      document.body.append(link);
      link.click();
      link.remove();
    },

    /** @param {{id: string | null}} session */
    async print(session) {
      if (session.id && session.id !== store.state.session?.id) await page.open(session.id);
      window.print();
    },

    /** Forget what was typed for a session that is gone. @param {string[]} ids */
    forget(ids) {
      for (const id of ids) {
        remember(draftKey(id), "");
        forgetEdits(id);
        forgetUnsaved(id);
      }
    },
  };
}

/** @typedef {ReturnType<typeof createLibrary>} Library */
