// @ts-check
/**
 * How the page looks in this browser: its language, its colours, the size of what is said, the width of the
 * conversation; how it tells of a reply while nobody looks, and to a screen reader. What is chosen counts at
 * once, and is remembered; early.js puts it there before the first paint, css/base.css has what each means,
 * title.js and chat/reader.js tell. The language alone is kept by the server, in a cookie, and comes when the
 * page is loaded again.
 */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";
import { notify } from "../base/notice.js";
import { recall, remember } from "../base/storage.js";
import { get, post } from "../server/api.js";
import { openDialog } from "./dialogs.js";
import { toastError } from "./toast.js";

/** The name it is remembered by, its heading, and the choices, the usual one as "". */
const CHOICES = /** @type {const} */ ([
  [
    "theme",
    t("Colours"),
    [
      ["", t("As the system")],
      ["light", t("Light")],
      ["dark", t("Dark")],
      ["paper", t("Paper")],
      ["night", t("Night")],
      ["contrast", t("High contrast")],
    ],
  ],
  [
    "textSize",
    t("Size of the text"),
    [
      ["small", t("Small")],
      ["", t("Usual")],
      ["large", t("Large")],
      ["largest", t("Largest")],
    ],
  ],
  [
    "column",
    t("Width of the conversation"),
    [
      ["narrow", t("Narrow")],
      ["", t("Usual")],
      ["wide", t("Wide")],
      ["whole", t("All there is")],
    ],
  ],
  [
    "notices",
    t("A reply that comes while you look elsewhere"),
    [
      ["", t("Marks the tab's title")],
      ["on", t("Notifies me, too")],
    ],
  ],
  [
    "reader",
    t("For screen readers"),
    [
      ["", t("Each paragraph when it is finished")],
      ["sentences", t("Each sentence, with who says it")],
      ["replies", t("Each reply when it is finished")],
    ],
  ],
]);
const REFUSED = t("The browser does not allow Parlor to notify you. Its settings for this page can.");
const UNABLE = t("This browser lets no page notify you.");
const UNSAFE = t("Browsers allow it for addresses with https and for this machine's own only.");

/** What is in the way of notifications; "" if one could be shown, and was. */
async function whyNoNotice() {
  if ((await window.Notification?.requestPermission()) !== "granted") return window.isSecureContext ? REFUSED : UNSAFE;
  return notify("Parlor", t("You are told of a reply like this.")) ? "" : UNABLE;
}

/**
 * @param {string} name @param {string} heading @param {readonly (readonly [string, string])[]} values
 * @param {string} chosen @param {(input: HTMLInputElement) => void} choose
 * @param {(Node | string | false)[]} more
 */
function choices(name, heading, values, chosen, choose, ...more) {
  return h(
    "fieldset",
    { class: "looks" },
    h("legend", { class: "label", text: heading }),
    ...values.map(([value, label]) => {
      const input = h("input", {
        type: "radio",
        name,
        value,
        "data-autofocus": name === "theme" && value === chosen,
        on: { change: () => choose(/** @type {HTMLInputElement} */ (input)) },
      });
      input.checked = value === chosen;
      return h("label", { class: "look" }, input, h("span", { text: label, lang: name === "language" && value }));
    }),
    ...more,
  );
}

/**
 * Arrow keys choose, too: so the page is loaded again only when somebody says so.
 * @param {{languages: {id: string, name: string}[], language: string}} known
 */
function languageChoice({ languages, language }) {
  const again = h("button", {
    type: "button",
    class: "button small",
    text: t("Load the page again in this language"),
    hidden: true,
    on: { click: () => location.reload() },
  });
  const values = languages.map(({ id, name }) => /** @type {[string, string]} */ ([id, name]));
  return choices(
    "language",
    t("Language"),
    [["", t("As the browser")], ...values],
    language,
    async (input) => {
      const kept = await post("/api/language", { language: input.value }).catch(toastError);
      if (kept) Object.assign(again, { hidden: false });
    },
    h("div", { role: "status" }, again),
  );
}

const keysOfReader = () =>
  h("p", { class: "help", text: t("The last two bring keys of their own: Alt N to the next message, and more in the list of keys.") });

/** @param {() => void} readAloud as it is chosen now */
export async function openAppearance(readAloud) {
  const known = await get("/api/language").catch(toastError);
  const refused = h("p", { class: "help wrong", role: "alert", hidden: true });

  /**
   * @param {"theme" | "textSize" | "column" | "notices" | "reader"} name @param {HTMLInputElement} input
   */
  async function choose(name, input) {
    remember(name, input.value);
    if (name === "reader") readAloud();
    else if (name === "notices") {
      refused.textContent = input.value && (await whyNoNotice());
      refused.hidden = !refused.textContent;
      if (refused.hidden) return;
      remember(name, "");
      /** @type {any} */ (input.closest("fieldset")).querySelector("[value='']").checked = true;
    } else if (input.value) document.documentElement.dataset[name] = input.value;
    else delete document.documentElement.dataset[name];
  }

  openDialog(t("Appearance"), [
    ...CHOICES.map(([name, heading, values]) => {
      const chosen = values.some(([value]) => value === recall(name)) ? recall(name) : "";
      return choices(name, heading, values, chosen, (input) => choose(name, input), name === "notices" && refused, name === "reader" && keysOfReader());
    }),
    ...(known ? [languageChoice(known)] : []),
  ]);
}
