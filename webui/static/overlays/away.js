// @ts-check
/** The line above the chat while the server does not answer. */

import { byId, h } from "../base/dom.js";
import { t } from "../base/language.js";

/** @param {number} inMs when it is tried again @param {() => void} now tries it at once */
export function showAway(inMs, now) {
  const banner = byId("banner");
  banner.hidden = false;
  banner.replaceChildren(
    h("span", {
      text: t("Parlor's server does not answer. Trying again in {seconds} s; what you typed is kept.", {
        seconds: Math.round(inMs / 1000),
      }),
    }),
    h("button", { type: "button", class: "button small", text: t("Try now"), on: { click: now } }),
  );
}

export function hideAway() {
  byId("banner").hidden = true;
}
