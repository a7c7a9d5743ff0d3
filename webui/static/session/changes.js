// @ts-check
/**
 * Follows what other tabs do, by one cheap question now and then, and says when the server is gone and back.
 * @import { Slot } from "../types.js"
 * @import { Store } from "./store.js"
 */

import { get } from "../server/api.js";

const IDLE_MS = 1500;
const WRITING_MS = 4000;
/** While a model is loaded or let go. */
const LOADING_MS = 500;
const AWAY_MS = [1000, 2000, 4000, 8000];
/** While nobody looks, but waits to be told that a reply is there. */
const HIDDEN_MS = 3000;
/** The machine's numbers change slowly. */
const STATUS_EVERY = 7;

/**
 * @param {Store} store
 * @param {{changed: (changes: any) => void, slot: (before: Slot, now: Slot) => void, back: () => void,
 *   gone: (inMs: number) => void, waits: () => boolean}} page `waits`: even though nobody looks
 */
export function followChanges(store, page) {
  let counter = 0;
  let failures = 0;
  let rounds = 0;
  let timer = 0;
  let busy = false;

  async function ask() {
    clearTimeout(timer);
    if (busy) return;
    busy = true;
    try {
      if (failures || (rounds += 1) % STATUS_EVERY === 0) store.set({ status: await get("/api/status") });
      if (failures) {
        failures = 0;
        page.back();
      }
      const changes = await get(`/api/changes?since=${counter}`);
      counter = changes.changes;
      takeSlot(changes.model);
      page.changed(changes);
    } catch (error) {
      if (/** @type {any} */ (error).status === 0) failures += 1;
    }
    busy = false;
    const wait = failures
      ? AWAY_MS[Math.min(failures - 1, AWAY_MS.length - 1)]
      : ["ready", "empty", "asleep"].includes(store.state.slot?.phase || "ready")
        ? store.state.live.size
          ? WRITING_MS
          : IDLE_MS
        : LOADING_MS;
    store.set({ away: failures > 0 });
    if (failures) page.gone(wait);
    if (!document.hidden) timer = window.setTimeout(ask, wait);
    else if (page.waits()) timer = window.setTimeout(ask, HIDDEN_MS);
  }

  /** What is loaded, or on its way. @param {Slot} slot */
  function takeSlot(slot) {
    const before = store.state.slot;
    if (before && JSON.stringify(before) === JSON.stringify(slot)) return;
    store.set({ slot });
    if (before) page.slot(before, slot);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden && !page.waits()) clearTimeout(timer);
    else ask();
  });

  return {
    /** @param {number} since */
    start(since) {
      counter = since;
      timer = window.setTimeout(ask, IDLE_MS);
    },
    /** Look at once: something failed, or the user asks. */
    now: ask,
    /** The server has just said what is loaded. @param {Slot} slot */
    took(slot) {
      takeSlot(slot);
      ask();
    },
    /** A request elsewhere did not reach the server. */
    suspect() {
      if (failures) return;
      failures = 1;
      store.set({ away: true });
      page.gone(AWAY_MS[0]);
      clearTimeout(timer);
      timer = window.setTimeout(ask, AWAY_MS[0]);
    },
  };
}
