// @ts-check
/**
 * What can be done with the sampling of a session as a preset: keep it as a new one, put it into one's own,
 * delete that.
 * @import { Preset } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { isSameName } from "../base/format.js";
import { t } from "../base/language.js";
import { post, put, remove } from "../server/api.js";
import { confirmDialog, promptDialog } from "../overlays/dialogs.js";
import { openMenu } from "../overlays/menu.js";
import { toast, toastError } from "../overlays/toast.js";

const MAX_NAME = 60;

/**
 * @param {Store} store @param {Room} room @param {() => Promise<void>} reloadSettings
 * @returns {(anchor: HTMLElement, chosen: Preset | undefined) => void} opens the menu
 */
export function createPresetMenu(store, room, reloadSettings) {
  /** @param {HTMLElement} anchor @param {Preset | undefined} chosen the session's */
  function open(anchor, chosen) {
    const { session } = store.state;
    if (!session) return;
    const own = chosen && !chosen.builtin ? chosen : null;
    openMenu(anchor, t("Presets"), [
      { label: t("Save as a new preset"), icon: "save", onSelect: () => saveNew(chosen) },
      own && {
        label: t("Save into “{name}”", own),
        icon: "check",
        onSelect: () => overwrite(own, { ...own.sampling, ...session.sampling }),
      },
      own && { label: t("Delete “{name}”", own), icon: "trash-2", danger: true, onSelect: () => deletePreset(own) },
    ]);
  }

  /** @param {Preset | undefined} chosen */
  async function saveNew(chosen) {
    const { session, settings } = store.state;
    const check = (/** @type {string} */ text) =>
      settings?.presets.some((one) => isSameName(one.name, text))
        ? t("There is a preset of that name already.")
        : text.length > MAX_NAME
          ? t("The name has more than {most} characters.", { most: MAX_NAME })
          : "";
    const name = await promptDialog(t("Save as preset"), t("Name"), "", t("Save"), check);
    if (!name || !session) return;
    const sampling = { ...chosen?.sampling, ...session.sampling };
    const made = await post("/api/presets", { name, sampling }).catch(toastError);
    if (!made) return;
    await reloadSettings();
    room.change({ preset: made.preset.id, sampling: {} });
    toast(t("Saved “{name}”.", { name }));
  }

  /** @param {Preset} own @param {Record<string, any>} sampling */
  async function overwrite(own, sampling) {
    const { session } = store.state;
    const keep = (values) => put(`/api/presets/${own.id}`, { name: own.name, sampling: values }).catch(toastError);
    if (!(await keep(sampling))) return;
    await reloadSettings();
    room.change({ sampling: {} });
    toast(t("Saved “{name}”.", own), {
      action: t("Undo"),
      onAction: async () => {
        if (!(await keep(own.sampling))) return;
        await reloadSettings();
        if (store.state.session?.id === session?.id) room.change({ sampling: session?.sampling });
      },
    });
  }

  /** @param {Preset} own */
  async function deletePreset(own) {
    if (!(await confirmDialog(t("Delete “{name}”?", own), t("Sessions that use it go back to Balanced."), t("Delete"))))
      return;
    const values = { ...own.sampling, ...store.state.session?.sampling };
    room.change({ preset: "balanced", sampling: values });
    await room.flushPatch();
    await remove(`/api/presets/${own.id}`).catch(toastError);
    await reloadSettings();
  }

  return open;
}
