// @ts-check
/**
 * The session's title at the head of the page, which renames it, and in the browser's tab: with a mark, and a
 * notification if one is wanted, when something new came while nobody looked.
 * @import { Store } from "./session/store.js"
 */

import { byId, h } from "./base/dom.js";
import { t } from "./base/language.js";
import { notify } from "./base/notice.js";
import { recall } from "./base/storage.js";

/** @param {Store} store @param {(session: any) => void} rename */
export function createTitle(store, rename) {
  const heading = byId("title");
  let isNew = false;

  function showInTab() {
    const { session } = store.state;
    document.title = `${isNew ? "● " : ""}${session?.id ? `${session.title} · ` : ""}Parlor`;
  }

  function tell() {
    if (!recall("notices") || window.Notification?.permission !== "granted") return;
    const notice = notify(store.state.session?.title || "Parlor", t("There is a new reply."));
    notice?.addEventListener("click", () => {
      window.focus();
      notice.close();
    });
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden || !isNew) return;
    isNew = false;
    showInTab();
  });
  store.on(["session"], () => {
    const { session } = store.state;
    const title = session?.title || "";
    showInTab();
    if (heading.textContent === title && heading.dataset.id === (session?.id || "")) return;
    heading.dataset.id = session?.id || "";
    heading.replaceChildren(
      session?.id
        ? h("button", {
            type: "button",
            class: "title-button",
            dir: "auto",
            text: title,
            title: t("Rename"),
            on: { click: () => rename(store.state.session) },
          })
        : h("span", { text: title }),
    );
  });

  return {
    /** Whether nobody looks, and a reply that is being written is to be told. */
    waits: () => document.hidden && !isNew && store.state.live.size > 0,

    /** Something new is in the session. */
    mark() {
      if (!document.hidden || isNew) return;
      isNew = true;
      showInTab();
      tell();
    },
  };
}
