// @ts-check
/**
 * What there is to say of the model: a line above the composer while none is loaded, one is on its way, or
 * another one than the session was written with; and the button at the foot of the left panel that opens the
 * menu of models.
 * @import { Download, Message, Slot } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { byId, h, setText } from "../base/dom.js";
import { bytes } from "../base/format.js";
import { t, together } from "../base/language.js";
import { botOf } from "../session/store.js";

/** @param {Slot | null} slot */
export const isComing = (slot) => Boolean(slot && ["checking", "waiting", "loading"].includes(slot.phase));

/** What goes on, in a few words. @param {Slot} slot */
export function comingText(slot) {
  if (!slot.coming_name) return t("Unloading {name}", { name: slot.name || t("the model") });
  if (slot.phase === "waiting") return t("{coming_name} waits for the reply that is being written", slot);
  const compiles = slot.what && !slot.what.startsWith("Loading");
  return compiles ? slot.what : t("Loading {coming_name}", slot);
}

/** @param {Download | null | undefined} download */
export const isDownloading = (download) =>
  Boolean(download && ["asking", "fetching", "cancelling"].includes(download.phase));

/**
 * What stops a download; the hub may take its time until it has stopped.
 * @param {HTMLButtonElement} button @param {Download} download
 */
export function showCancel(button, { phase }) {
  button.disabled = phase === "cancelling";
  setText(button, button.disabled ? t("Cancelling…") : t("Cancel"));
}

/** How far it is. @param {Download} download */
export function downloadText({ file, source, done_bytes: done, total_bytes: total }) {
  const name = file || source;
  if (!total) return t("Downloading {name}", { name });
  return t("Downloading {name}: {done} of {total}", { name, done: bytes(done), total: bytes(total) });
}

/** @param {string} label */
export function createProgress(label) {
  const fill = h("span", { class: "meter-fill" });
  const bar = h(
    "span",
    { class: "meter", role: "progressbar", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100" },
    fill,
  );
  return {
    element: bar,
    /** @param {number} share 0 to 1 */
    set(share) {
      bar.ariaValueNow = String(Math.round(100 * share));
      fill.style.width = `${100 * share}%`;
    },
  };
}

/**
 * @param {Store} store @param {Room} room
 * @param {{openModels: () => void, loadNamed: (name: string) => void, cancel: () => void,
 *   cancelDownload: () => void}} page
 */
export function createModelLine(store, room, page) {
  const line = byId("model-line");
  const text = h("span", { class: "model-line-text" });
  const progress = createProgress(t("How far it is"));
  const action = h("button", { type: "button", class: "text-button", on: { click: () => act() } });
  let act = () => {};
  line.append(progress.element, text, action);

  /** The model that wrote the last reply that is shown, but for those of bots with an engine of their own. */
  const lastModel = () => room.path().findLast(isOfLoaded)?.model;
  /** @param {Message} message */
  const isOfLoaded = ({ author, model }) => author !== "user" && model && !botOf(store.state, author)?.engine;

  /** @param {string} words @param {string} does @param {() => void} how @param {number} [share] */
  function show(words, does, how, share) {
    setText(text, words);
    setText(action, does);
    action.disabled = false;
    act = how;
    progress.element.hidden = share === undefined;
    progress.set(share || 0);
  }

  function update() {
    const { slot, loading } = store.state;
    const before = slot && lastModel();
    line.hidden = false;
    if (!slot || loading) line.hidden = true;
    else if (isComing(slot)) show(comingText(slot), t("Cancel"), page.cancel, slot.share);
    else if (isDownloading(slot.download)) {
      const download = /** @type {Download} */ (slot.download);
      const share = download.total_bytes ? download.done_bytes / download.total_bytes : 0;
      show(downloadText(download), "", page.cancelDownload, share);
      showCancel(action, download);
    } else if (slot.phase === "empty")
      show(together(t("No model is loaded."), slot.problem), t("Choose one"), page.openModels);
    else if (before && before !== slot.name)
      show(t("Written with {before}; {name} is loaded now.", { before, name: slot.name }), t("Load that one"), () => page.loadNamed(before));
    else line.hidden = true;
  }

  const name = h("span", { class: "machine-model" });
  const memory = h("span", {});
  byId("machine").append(
    h(
      "button",
      {
        type: "button",
        class: "machine-button",
        title: t("Choose another model"),
        "aria-haspopup": "dialog",
        on: { click: page.openModels },
      },
      h("span", { class: "visually-hidden", text: `${t("Model")}: ` }),
      name,
      memory,
    ),
  );

  function updateMachine() {
    const { status, slot } = store.state;
    const model = status?.model;
    const { memory_bytes: used, gpu_memory_bytes: gpu, gpu_memory_total_bytes: total } = status?.engine || {};
    const problem = status?.engine?.problem;
    const shown = model && [model.name, shortQuantization(model.quantization)].filter(Boolean).join(" · ");
    const asleep = slot?.phase === "asleep" && `${slot.name} · ${t("asleep")}`;
    setText(name, isComing(slot) ? comingText(/** @type {Slot} */ (slot)) : asleep || shown || t("No model"));
    const host = model?.host;
    const here = gpu ? t("{number} of {all}", { number: bytes(gpu), all: bytes(total) }) : used ? bytes(used) : "";
    setText(memory, host ? t("at {host}", { host }) : problem ? t("The engine has stopped") : here);
    memory.title = problem || (host ? t("Where the model is") : gpu ? t("GPU memory in use") : t("Memory that the server uses"));
  }

  store.on(["slot", "session", "viewLeaf", "loading"], update);
  store.on(["slot", "status"], updateMachine);
  update();
}

/** "4-bit GPTQ g64" is "4-bit" where there is little room. @param {string | undefined} text */
function shortQuantization(text) {
  const [first, second] = (text || "").split(/[ ,]+/);
  return first === "GGUF" ? second : first;
}
