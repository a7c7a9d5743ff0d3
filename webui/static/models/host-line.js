// @ts-check
/**
 * The line above the composer that says to which other hosts what is said goes, before and while it does.
 * @import { Store } from "../session/store.js"
 */

import { byId, setText } from "../base/dom.js";
import { whereTextGoes } from "../session/hosts.js";

/** @param {Store} store */
export function createHostLine(store) {
  const line = byId("host-line");
  function update() {
    const words = whereTextGoes(store.state);
    line.hidden = !words;
    setText(line, words);
  }
  store.on(["session", "bots", "status", "settings"], update);
  update();
}
