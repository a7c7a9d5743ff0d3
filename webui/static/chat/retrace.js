// @ts-check
/**
 * Undo and redo of what was changed in a session, by whatever tab or device: the server keeps the steps.
 * @import { Change } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { t } from "../base/language.js";
import { toast } from "../overlays/toast.js";
import { botOf } from "../session/store.js";

const KINDS = {
  say: t("sent message"),
  reply: t("reply of {name}"),
  continue: t("continued reply of {name}"),
  edit: t("edited message"),
  delete: t("deleted message"),
  branch: t("another version shown"),
  pin: t("pinned message"),
  unpin: t("unpinned message"),
  whisper: t("whom a message is for"),
  label: t("name of a branch"),
  compare: t("comparison"),
  vote: t("vote"),
  "bot-in": t("{name} brought in"),
  "bot-out": t("{name} removed"),
  "bot-move": t("order of the bots"),
  "bot-mute": t("{name} muted"),
  "bot-unmute": t("{name} unmuted"),
  "bot-knows": t("what {name} knows"),
};
const FIELDS = {
  title: t("title"),
  turn_order: t("who answers"),
  preset: t("preset"),
  user_name: t("your name"),
  user_persona: t("who you are"),
  system_prompt: t("instructions"),
  note: t("author's note"),
  lore: t("lore book"),
  summaries: t("summary"),
  pinned: t("pinned session"),
  folder: t("folder"),
  tags: t("tags"),
};

/** What was undone or done again last; the next one takes its place. @type {HTMLElement | null} */
let shown = null;

/** What a change was, in a few words. @param {Store} store @param {Change} change @returns {string} */
function named({ state }, change) {
  const { kind, undone, fields = [], parameters = [] } = change;
  if (undone) return t("undoing of {what}", { what: named({ state }, { ...change, undone: false }) });
  if (kind in KINDS) {
    const name = change.name || (change.bot && botOf(state, change.bot)?.name) || t("a bot");
    return KINDS[kind].replace("{name}", name);
  }
  if (kind === "sampling") {
    const spec = parameters.length === 1 && state.settings?.parameters.find(({ name }) => name === parameters[0]);
    return spec ? spec.label : t("sampling");
  }
  const field = fields.includes("preset") ? "preset" : fields.length === 1 ? fields[0] : "";
  return FIELDS[field] || t("settings of the session");
}

/**
 * The lines of a menu that undo and do again.
 * @param {Store} store @param {Room} room
 * @param {() => void} closeDrawer the one that the menu is in: it covers what changes
 */
export function retraceItems(store, room, closeDrawer) {
  const { undo, redo } = store.state.session?.history || { undo: null, redo: null };
  return [
    {
      label: undo ? t("Undo: {what}", { what: named(store, undo) }) : t("Undo"),
      icon: "rotate-ccw",
      disabled: !undo,
      onSelect() {
        closeDrawer();
        retrace(store, room, "undo");
      },
    },
    {
      label: redo ? t("Redo: {what}", { what: named(store, redo) }) : t("Redo"),
      icon: "refresh-cw",
      disabled: !redo,
      onSelect() {
        closeDrawer();
        retrace(store, room, "redo");
      },
    },
  ];
}

/**
 * @param {Store} store @param {Room} room @param {"undo" | "redo"} way
 * @param {string} [step] undo this one, whatever came after it
 */
export async function retrace(store, room, way, step) {
  const { session } = store.state;
  if (!session?.id) {
    toast(t("Nothing was changed in this session yet."));
    return;
  }
  if (!(await room.flushPatch()) || store.state.session?.id !== session.id) return;
  const change = await room.retrace(way, step);
  if (!change) return;
  const what = named(store, change);
  const back = way === "undo" ? "redo" : "undo";
  shown?.remove();
  shown = toast(way === "undo" ? t("Undone: {what}.", { what }) : t("Done again: {what}.", { what }), {
    action: way === "undo" ? t("Redo") : t("Undo"),
    onAction: () => store.state.session?.id === session.id && retrace(store, room, back),
  });
}
