// @ts-check
/**
 * The box at the bottom: what is typed, who answers next, letting the bots talk, sending and stopping. Drafts are
 * kept by session in this browser. Enter sends; with an input method composing, or on a touch screen, it does not.
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { byId, h, icon } from "../base/dom.js";
import { plural } from "../base/format.js";
import { isComposing, isTouchOnly } from "../base/input.js";
import { draftKey, recall, remember } from "../base/storage.js";
import { createHold } from "../session/hold.js";
import { botsInRoom } from "../session/store.js";
import { openMenu } from "../overlays/menu.js";
import { toast } from "../overlays/toast.js";

const TURNS = [2, 4, 6, 10, 20, 50];
const MOST_HEIGHT_PX = 240;
const MOST_ATTACHED = 100_000;

/**
 * @param {Store} store
 * @param {Room} room
 * @param {{editLast: () => void, sent: () => void, speak: (botId: string) => void}} page
 */
export function createComposer(store, room, page) {
  const form = byId("composer");
  const text = /** @type {HTMLTextAreaElement} */ (byId("text"));
  const row = byId("composer-row");
  let draftOf = /** @type {string | null | undefined} */ (undefined);
  let sending = false;
  const hold = createHold(store, room);

  const file = h("input", { type: "file", class: "visually-hidden", tabindex: "-1", "aria-hidden": "true" });
  const attach = h("button", {
    type: "button",
    class: "text-button attach",
    text: "Attach",
    title: "Put a text file into the message",
    on: { click: () => file.click() },
  });
  const next = h("button", {
    type: "button",
    class: "text-button has-menu",
    "aria-haspopup": "menu",
    on: { click: nextMenu },
  });
  const talk = h("button", {
    type: "button",
    class: "text-button has-menu talk",
    "aria-haspopup": "menu",
    on: { click: talkMenu },
  });
  const stop = h(
    "button",
    { type: "button", class: "button stop", on: { click: room.stop } },
    "Stop",
    h("kbd", { text: "Esc" }),
  );
  const send = h("button", { type: "submit", class: "button primary send", text: "Send" });
  row.append(file, attach, next, talk, h("span", { class: "spacer" }), stop, send);

  function grow() {
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight, MOST_HEIGHT_PX)}px`;
  }

  const saveDraft = () => {
    if (draftOf !== undefined) remember(draftKey(draftOf), text.value);
  };

  /** @param {string} value */
  function setText(value) {
    text.value = value;
    grow();
  }

  /** The draft belongs to the session: leave the old one behind, bring the new one's. */
  function changeSession() {
    const { session } = store.state;
    const id = session ? session.id : undefined;
    text.disabled = !session;
    if (id === draftOf) return;
    hold.end(true);
    const becameSaved = draftOf === null && id && sending;
    draftOf = id;
    if (becameSaved) remember(draftKey(null), "");
    else setText(id === undefined ? "" : recall(draftKey(id)));
  }

  function turnOrder() {
    const { session, settings } = store.state;
    return settings?.turn_orders.find((order) => order.id === session?.turn_order);
  }

  function update() {
    changeSession();
    const { session, live, settings } = store.state;
    const bots = botsInRoom(store.state);
    const several = bots.length > 1;
    next.hidden = !several || !settings;
    talk.hidden = !several;
    next.replaceChildren(
      h("span", { text: `Next: ${(turnOrder()?.label || "in turn").toLowerCase()}` }),
      icon("chevron-down"),
    );
    talk.replaceChildren(h("span", { text: "Let them talk" }), icon("chevron-down"));
    stop.hidden = live.size === 0;
    const placeholder = several
      ? "Message the room, or leave it empty to let them go on"
      : bots.length
        ? `Message ${bots[0].name}`
        : "Add a bot to talk with";
    if (text.placeholder !== placeholder) {
      text.placeholder = placeholder;
      grow(); // on a telephone it takes two lines
    }
    send.disabled = !session;
  }

  function nextMenu() {
    const { session, settings } = store.state;
    if (!session || !settings) return;
    openMenu(next, "Who answers next", [
      { heading: "After your message" },
      ...settings.turn_orders.map(({ id, label, help }) => ({
        label,
        help,
        checked: id === session.turn_order,
        onSelect: () => room.change({ turn_order: id }),
      })),
      "line",
      { heading: "Right now" },
      ...botsInRoom(store.state).map((bot) => ({
        label: `Let ${bot.name} speak`,
        icon: "message-circle",
        onSelect: () => page.speak(bot.id),
      })),
    ]);
  }

  function talkMenu() {
    openMenu(talk, "Let them talk", [
      { heading: "Among themselves, until you stop them" },
      ...TURNS.map((turns) => ({
        label: plural(turns, "turn"),
        onSelect: () => {
          page.sent();
          room.reply("next", { turns });
        },
      })),
    ]);
  }

  async function submit() {
    const { session } = store.state;
    if (!session || sending) return;
    const said = text.value.trim();
    if (!said && !session.bots.length) return;
    sending = true;
    page.sent();
    saveDraft();
    hold.end(false);
    const worked = said ? await room.say(said) : await room.reply("next");
    sending = false;
    if (!worked || !said) return;
    if (text.value.trim() === said) setText("");
    saveDraft();
    text.focus();
  }

  text.addEventListener("input", () => {
    grow();
    saveDraft();
    hold.typed(text.value);
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
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen) return;
    const content = await chosen.text();
    if (content.length > MOST_ATTACHED || content.includes("\u0000")) {
      toast(`${chosen.name} is ${content.includes("\u0000") ? "not a text file" : "too long for a message"}.`, {
        serious: true,
      });
      return;
    }
    const language = chosen.name.includes(".") ? chosen.name.split(".").pop() : "";
    setText(
      `${text.value}${text.value ? "\n\n" : ""}${chosen.name}:\n\`\`\`${language}\n${content.trimEnd()}\n\`\`\`\n`,
    );
    saveDraft();
    text.focus();
  });
  window.addEventListener("resize", grow);
  store.on(["session", "bots", "settings", "live"], update);
  update();

  return {
    focus: () => text.focus({ preventScroll: true }),
    /** @param {string} value */
    fill(value) {
      setText(value);
      saveDraft();
      text.focus();
    },
  };
}
