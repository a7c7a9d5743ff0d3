// @ts-check
/**
 * The right panel: tabs, each with a body and perhaps a foot of its own. Arrow keys move between the tabs.
 */

import { byId, h } from "../base/dom.js";
import { alongReading } from "../base/input.js";
import { t } from "../base/language.js";
import { recall, remember } from "../base/storage.js";

/** @typedef {{id: string, label: string, body: HTMLElement, foot?: HTMLElement}} Tab */

/** @param {Tab[]} tabs @param {HTMLElement} closeButton */
export function createTabs(tabs, closeButton) {
  const place = byId("right");
  const buttons = tabs.map((tab) =>
    h("button", {
      type: "button",
      role: "tab",
      id: `tab-${tab.id}`,
      class: "tab",
      "aria-controls": `panel-${tab.id}`,
      text: tab.label,
      on: { click: () => choose(tab.id) },
    }),
  );
  const panels = tabs.map((tab) =>
    h(
      "div",
      {
        role: "tabpanel",
        id: `panel-${tab.id}`,
        class: "tab-panel",
        tabindex: "0",
        "aria-labelledby": `tab-${tab.id}`,
      },
      tab.body,
    ),
  );
  const foots = tabs.map((tab) => tab.foot || null);
  const list = h("div", { role: "tablist", class: "tabs", "aria-label": t("Settings") }, ...buttons);
  place.append(h("div", { class: "tab-bar" }, list, closeButton), ...panels, ...foots.filter(Boolean));

  /** @param {string} id */
  function choose(id) {
    const at = Math.max(
      0,
      tabs.findIndex((tab) => tab.id === id),
    );
    tabs.forEach((_, index) => {
      const chosen = index === at;
      buttons[index].setAttribute("aria-selected", String(chosen));
      buttons[index].tabIndex = chosen ? 0 : -1;
      panels[index].hidden = !chosen;
      if (foots[index]) /** @type {HTMLElement} */ (foots[index]).hidden = !chosen;
    });
    remember("tab", tabs[at].id);
  }

  list.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(/** @type {any} */ (document.activeElement));
    const by = alongReading(event.key);
    const to = by ? at + by : { Home: 0, End: tabs.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const next = (to + tabs.length) % tabs.length;
    choose(tabs[next].id);
    buttons[next].focus();
  });
  choose(recall("tab", tabs[0].id));
  return { choose };
}
