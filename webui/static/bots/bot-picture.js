// @ts-check
/** The picture of a bot in its editor: chosen from a file, or taken away. */

import { h } from "../base/dom.js";
import { t } from "../base/language.js";
import { asPicture } from "../base/picture-file.js";

/**
 * @param {(picture: string) => void} choose a PNG file in base64, or "" for none
 * @returns {{element: HTMLElement, show: (there: boolean) => void}} `there`: it has one
 */
export function botPicture(choose) {
  const wrong = h("p", { class: "help wrong", role: "alert" });
  const input = h("input", {
    type: "file",
    accept: "image/*",
    class: "visually-hidden",
    tabindex: "-1",
    "aria-hidden": "true",
    on: {
      async change() {
        const [file] = input.files;
        input.value = "";
        if (!file) return;
        wrong.remove();
        try {
          choose(await asPicture(file, file.name));
        } catch (error) {
          wrong.textContent = /** @type {Error} */ (error).message;
          element.append(wrong);
        }
      },
    },
  });
  const button = (text, onClick) =>
    h("button", { type: "button", class: "text-button", text, on: { click: onClick } });
  const set = button(t("Choose a picture"), () => input.click());
  const drop = button(t("Remove the picture"), () => {
    choose("");
    set.focus();
  });
  const element = h("div", { class: "bot-picture" }, input, set, drop);
  return {
    element,
    show(there) {
      set.textContent = there ? t("Another picture") : t("Choose a picture");
      drop.hidden = !there;
    },
  };
}
