// @ts-check
/**
 * The model that is loaded, as the page tells it: the line above the composer, news of it in every tab, and
 * the menu of models, which comes when it is wanted.
 * @import { Download, Slot } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { announce } from "../base/announce.js";
import { t } from "../base/language.js";
import { get } from "../server/api.js";
import { toast, toastError } from "../overlays/toast.js";
import { createHostLine } from "./host-line.js";
import { createModelLine } from "./model-line.js";

/**
 * @param {Store} store @param {Room} room
 * @param {{took: (slot: Slot) => void, closeDrawer: () => void, reloadSettings: () => Promise<void>}} page
 */
export function createLoadedModel(store, room, page) {
  /** @type {Promise<ReturnType<typeof import("./models.js").createModels>> | null} */
  let models = null;

  function menu() {
    models ||= import("./models.js").then(({ createModels }) =>
      createModels(store, { took: page.took, enginesChanged: page.reloadSettings }),
    );
    return models;
  }

  async function openMenu() {
    page.closeDrawer();
    (await menu()).open();
  }

  /** Another model, or none, or why not. @param {Slot} before @param {Slot} now */
  async function changed(before, now) {
    if (now.problem && now.problem !== before.problem && !(await models)?.isOpen)
      toast(now.problem, { serious: true });
    tellDownload(before.download, now.download);
    if (now.version === before.version) return;
    const isSame = now.id === before.id && before.phase === "ready"; // but for an adapter beside it
    if (now.phase === "ready" && !isSame) announce(t("{name} is loaded.", now));
    if (now.phase === "empty") announce(t("No model is loaded."));
    const status = await get("/api/status").catch(toastError);
    if (status) store.set({ status });
    await page.reloadSettings();
    room.refresh();
  }

  /** @param {Download | null} before @param {Download | null} now */
  async function tellDownload(before, now) {
    if (!now || now.phase === before?.phase) return;
    if (now.phase === "done") {
      const load = async () => (await menu()).loadNew(now.id, now.name);
      toast(t("{name} is downloaded.", now), { action: t("Load it"), onAction: load });
      announce(t("{name} is downloaded.", now));
    } else if (now.phase === "failed" && !(await models)?.isOpen) toast(now.problem, { serious: true });
  }

  createHostLine(store);
  createModelLine(store, room, {
    openModels: openMenu,
    loadNamed: async (name) => (await menu()).loadNamed(name),
    cancel: async () => (await menu()).cancel(),
    cancelDownload: async () => (await menu()).cancelDownload(),
  });
  /** @param {number} tokens */
  const enlarge = async (tokens) => (await menu()).enlarge(tokens);
  return { openMenu, changed, enlarge };
}
