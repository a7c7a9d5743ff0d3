// @ts-check
/**
 * The box at the bottom: what is typed, sending and stopping. Drafts are kept by session in this browser,
 * and what is on its way belongs to the draft until the server has it. Enter sends; with an input method
 * composing, or on a touch screen, it does not.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { byId, fitHeight, h, iconButton } from "../base/dom.js";
import { isComposing, isTouchOnly, trimLines } from "../base/input.js";
import { stayAboveKeyboard } from "../base/keyboard.js";
import { t } from "../base/language.js";
import { draftKey, recall, remember } from "../base/storage.js";
import { createHold } from "../session/hold.js";
import { botsInRoom } from "../session/store.js";
import { namesOf, recallWhisper } from "../session/whisper.js";
import { createAttach } from "./attach.js";
import { createTurnMenus } from "./turn-menus.js";
import { createWhisperLine } from "./whisper-line.js";

const MAX_HEIGHT_PX = 240;

/** @param {string[]} texts */
const joined = (...texts) => texts.filter(Boolean).join("\n\n");

/**
 * @param {Store} store
 * @param {Room} room
 * @param {{editLast: () => void, sent: () => void, speak: (botId: string) => void}} page
 */
export function createComposer(store, room, page) {
  const form = byId("composer");
  const text = /** @type {HTMLTextAreaElement} */ (byId("text"));
  let draftOf = /** @type {string | null | undefined} */ (undefined);
  const hold = createHold(store, room);
  const turns = createTurnMenus(store, room, page);
  const stop = h(
    "button",
    { type: "button", class: "button stop", on: { click: room.stop } },
    t("Stop"),
    h("kbd", { text: t("Esc") }),
  );
  const send = h("button", { type: "submit", class: "button send", text: t("Send") });
  const most = () => store.state.settings?.limits.max_text ?? Infinity;
  const attach = createAttach(form, () => most() - text.value.length - 2);
  text.before(createWhisperLine(store));
  const help = iconButton(
    "plus",
    t("What helps to write"),
    async () => (await import("./writing.js")).openWritingMenu(store, room, help, box),
    { "aria-haspopup": "menu" },
  );
  byId("composer-row").append(attach.input, help, ...turns.buttons, h("span", { class: "spacer" }), stop, send);

  const grow = () => fitHeight(text, form, MAX_HEIGHT_PX);

  /** What is on its way to the server, and the session of its draft. */
  let sending = { text: "", of: /** @type {string | null | undefined} */ (undefined) };
  let isSending = false;
  let sendAgain = false;
  /** For files that are being read. */
  let isWaiting = false;

  const saveDraft = () => {
    if (draftOf !== undefined)
      remember(draftKey(draftOf), joined(sending.of === draftOf ? sending.text : "", text.value));
  };

  /** The draft of a session, without what is on its way. @param {string | null} id */
  function draft(id) {
    const kept = recall(draftKey(id));
    return sending.of === id && kept.startsWith(sending.text) ? kept.slice(sending.text.length).trimStart() : kept;
  }

  /** @param {string} value */
  function setText(value) {
    text.value = value;
    grow();
    turns.update(value);
    form.dispatchEvent(new Event("filled"));
  }

  /** For what helps to write. */
  const box = {
    text,
    /** @param {string} value */
    fill(value) {
      setText(value);
      saveDraft();
    },
    submit,
    attach: () => attach.input.click(),
  };
  /** @type {Promise<any> | null} */
  let mentions = null;

  /** @param {string} value */
  function fill(value) {
    setText(value);
    saveDraft();
    text.focus();
  }

  /** The draft belongs to the session: leave the old one behind, bring the new one's. */
  function changeSession() {
    const { session } = store.state;
    const id = session ? session.id : undefined;
    text.disabled = !session;
    if (id === draftOf) return;
    hold.end(true);
    const becameSaved = draftOf === null && Boolean(id); // of another there would be none in between
    draftOf = id;
    attach.enter(id, becameSaved);
    recallWhisper(store, becameSaved ? null : undefined);
    if (becameSaved) {
      remember(draftKey(null), "");
      if (isSending) sending.of = id;
      saveDraft();
    } else setText(id === undefined ? "" : draft(id));
  }

  function update() {
    changeSession();
    turns.update(text.value);
    const { session, live, away, audience } = store.state;
    const bots = botsInRoom(store.state);
    const isWriting = live.size > 0 && !away; // a server that is gone can be told nothing
    stop.hidden = !isWriting;
    stop.classList.toggle("primary", isWriting);
    send.classList.toggle("primary", !isWriting);
    const placeholder =
      audience
        ? t("Whisper to {name}", { name: namesOf(store.state, audience) })
        : bots.length > 1
        ? t("Message the room, or leave it empty to let them go on")
        : bots.length
          ? t("Message {name}", bots[0])
          : t("Add a bot to talk with");
    if (text.placeholder !== placeholder) {
      text.placeholder = placeholder;
      grow(); // on a telephone it takes two lines
    }
    send.disabled = !session;
  }

  /** Send once all files are there; where one was refused, the user goes on. @param {string} [begin] */
  async function submitWithFiles(begin) {
    if (isWaiting) return;
    isWaiting = true;
    const of = draftOf;
    const all = await attach.reading();
    isWaiting = false;
    if (all && of === draftOf) submit(begin);
  }

  /** What was on its way has arrived, or is given back. @param {boolean} worked */
  function settle(worked) {
    const { text: said, of } = sending;
    const isHere = of === draftOf;
    if (worked && !isHere && of !== undefined) remember(draftKey(of), draft(of));
    sending = { text: "", of: undefined };
    isSending = false;
    if (!isHere) return; // another session is shown by now; the draft of this one has it
    if (!worked) setText(joined(said, text.value));
    saveDraft();
    if (worked && said && !isTouchOnly()) text.focus(); // there the reply needs the keyboard's room
  }

  /** @param {string} [begin] the first words of the reply */
  async function submit(begin) {
    const { session } = store.state;
    if (attach.reading()) return submitWithFiles(begin);
    const typed = trimLines(text.value);
    const said = trimLines(joined(typed, attach.text()));
    if (!session || (!said && !session.bots.length)) return;
    if (isSending) {
      sendAgain = Boolean(said);
      return;
    }
    isSending = true;
    sending = { text: typed, of: draftOf };
    const arrived = attach.send();
    setText("");
    saveDraft();
    page.sent();
    hold.end(false);
    const worked = said
      ? await room.say(said, store.state.audience, begin)
      : await room.reply("next", begin ? { begin } : {});
    arrived(Boolean(worked));
    settle(worked);
    if (worked && said && sendAgain) submit();
    sendAgain = false;
  }

  text.addEventListener("input", () => {
    grow();
    saveDraft();
    turns.update(text.value);
    hold.typed(text.value);
    if (mentions || text.value[text.selectionStart - 1] !== "@") return;
    mentions = import("./mentions.js").then(({ createMentions }) => createMentions(store, text).update());
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "ArrowUp" && !text.value && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      page.editLast();
    }
    if (event.key !== "Enter" || isComposing(event) || event.altKey) return;
    const always = event.ctrlKey || event.metaKey;
    if (!always && (event.shiftKey || isTouchOnly())) return;
    event.preventDefault();
    submit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  form.addEventListener("unfold", () => box.fill(joined(text.value, attach.takeOut())));
  window.addEventListener("resize", grow);
  stayAboveKeyboard();
  store.on(["session", "bots", "settings", "live", "away", "audience"], update);
  update();

  const focus = () => text.focus({ preventScroll: true });
  return {
    focus,
    /** Where the focus is when nothing else has it; on a telephone the box would bring up the keyboard. */
    rest: () => (isTouchOnly() ? byId("transcript").focus({ preventScroll: true, focusVisible: false }) : focus()),
    fill,
  };
}
