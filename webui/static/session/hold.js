// @ts-check
/**
 * While something is being written in the composer, bots among themselves wait before their next turn. The
 * server forgets a hold that is not renewed, so a tab that is closed in the middle holds nobody.
 * @import { Store } from "./store.js"
 * @import { Room } from "./room.js"
 */

/** The server waits 15 s. */
const RENEW_MS = 5000;

/** @param {Store} store @param {Room} room */
export function createHold(store, room) {
  let timer = 0;
  let held = "";

  /** @param {boolean} release whether the bots may go on, unless what was written ended their talk */
  function end(release) {
    if (!timer) return;
    clearInterval(timer);
    timer = 0;
    if (release) room.hold(held, false);
  }

  return {
    /** The text was changed by hand. @param {string} text */
    typed(text) {
      const { session, live } = store.state;
      if (!text.trim() || !live.size) end(true);
      else if (!timer && session?.id) {
        held = session.id;
        room.hold(held, true);
        timer = window.setInterval(() => (store.state.live.size ? room.hold(held, true) : end(false)), RENEW_MS);
      }
    },
    end,
  };
}
