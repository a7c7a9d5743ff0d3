// @ts-check
/**
 * The whole right panel, put together from its tabs. Loaded after the chat is on the page; what printing
 * takes comes with it, for the browser does not wait for that once somebody prints.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { t } from "../base/language.js";
import { preparePrinting } from "../chat/printing.js";
import { createBotTab } from "../bots/bot-tab.js";
import { createModelTab } from "../models/model-tab.js";
import { createSampling } from "../sampling/sampling.js";
import { createSessionTab } from "./session-tab.js";
import { createTabs } from "./tabs.js";

/**
 * @param {Store} store
 * @param {Room} room
 * @param {ReturnType<import("../chat/chips.js").createChips>} changes
 * @param {{closeButton: HTMLElement, reloadSettings: () => Promise<void>,
 *   library: import("../library/library.js").Library,
 *   speak: (id: string) => void, editBot: (bot: any) => void, openModels: () => void,
 *   timeline: () => void}} page
 */
export function createRightPanel(store, room, changes, page) {
  const { closeButton, reloadSettings, library, speak, editBot, openModels } = page;
  preparePrinting(store, room);
  const current = () => /** @type {any} */ (store.state.session);
  const session = createSessionTab(store, room, {
    timeline: page.timeline,
    rename: () => library.rename(current()),
    duplicate: () => library.duplicate(current()),
    exported: (format) => library.exported(current(), format),
    print: () => library.print(current()),
    remove: () => library.remove(current()),
  });
  return createTabs(
    [
      { id: "sampling", label: t("Sampling"), ...createSampling(store, room, reloadSettings) },
      { id: "session", label: t("Session"), ...session },
      { id: "bot", label: t("Bot"), ...createBotTab(store, changes, { speak, editBot }) },
      { id: "model", label: t("Model"), ...createModelTab(store, openModels) },
    ],
    closeButton,
  );
}
