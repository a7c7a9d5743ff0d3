// @ts-check
/**
 * The session's title at the head of the page, which renames it, and in the browser's tab.
 * @import { Store } from "./session/store.js"
 */

import { byId, h } from "./base/dom.js";

/** @param {Store} store @param {(session: any) => void} rename */
export function createTitle(store, rename) {
  const heading = byId("title");
  store.on(["session"], () => {
    const { session } = store.state;
    const title = session?.title || "";
    document.title = session?.id ? `${title} · Parlor` : "Parlor";
    if (heading.textContent === title && heading.dataset.id === (session?.id || "")) return;
    heading.dataset.id = session?.id || "";
    heading.replaceChildren(
      session?.id
        ? h("button", {
            type: "button",
            class: "title-button",
            dir: "auto",
            text: title,
            title: "Rename",
            on: { click: () => rename(store.state.session) },
          })
        : h("span", { text: title }),
    );
  });
}
