// @ts-check
/**
 * The ··· menu of a message and what it opens: the numbers that were kept with a reply, and its sampling.
 * @import { Message, Parameter } from "./types.js"
 * @import { Store } from "./session/store.js"
 * @import { Room } from "./session/room.js"
 */

import { h } from "./base/dom.js";
import { count, duration, fullTime, numbers, shown, speed, tokens } from "./base/format.js";
import { t } from "./base/language.js";
import { openDialog } from "./overlays/dialogs.js";
import { openMenu } from "./overlays/menu.js";
import { toast } from "./overlays/toast.js";
import { botOf, nameOf } from "./session/store.js";
import { audienceText } from "./session/whisper.js";
import { copyText } from "./text/code.js";
import { plainText } from "./text/plain.js";
import { openCompare } from "./branches/side-by-side.js";
import { retrace } from "./chat/retrace.js";
import { openReplay } from "./tokens/replay.js";
import { askBeginning } from "./writing/writing.js";

const REASONS = {
  eos: t("ended by itself"),
  stop: t("reached a stop string"),
  length: t("cut at the most tokens"),
  context: t("the context was full"),
  cancelled: t("stopped"),
  error: t("failed"),
  interrupted: t("interrupted"),
};

/** @param {Message} message @returns {[string, string][]} */
function facts(message) {
  const rows = /** @type {[string, any][]} */ ([
    [t("Written"), fullTime(message.created)],
    [t("Model"), message.model],
    [t("Length"), message.new_tokens && tokens(message.new_tokens)],
    [t("Speed"), message.tokens_per_second && speed(message.tokens_per_second)],
    [
      t("Guessed ahead"),
      message.drafted_tokens &&
        t("{right} of {all} tokens were right", {
          right: message.accepted_tokens || 0,
          all: message.drafted_tokens,
        }),
    ],
    [t("First token"), message.seconds_to_first_token && duration(message.seconds_to_first_token)],
    [
      t("Prompt"),
      message.prompt_tokens &&
        [
          tokens(message.prompt_tokens),
          message.cached_tokens && t("{count} from cache", { count: message.cached_tokens }),
          message.prompt_seconds && duration(message.prompt_seconds),
        ]
          .filter(Boolean)
          .join(" · "),
    ],
    [t("Ended"), REASONS[message.finish_reason || ""]],
    [t("Seed"), message.seed === undefined || message.seed === null ? "" : String(message.seed)],
  ]);
  return rows.filter(([, value]) => value);
}

/** @param {Store} store @param {Room} room @param {Message} message */
function openDetails(store, room, message) {
  const specs = (store.state.settings?.parameters || []).filter(
    (spec) => message.sampling && spec.name in message.sampling && spec.name !== "seed",
  );
  const row = ([label, value]) =>
    h("div", {}, h("dt", { text: label }), h("dd", { class: "tabular", text: value }));
  const reuse =
    message.seed !== undefined &&
    message.seed !== null &&
    h("button", {
      type: "button",
      class: "button",
      text: t("Use this seed again"),
      on: {
        click: () => {
          room.change({ sampling: { ...store.state.session?.sampling, seed: message.seed } });
          dialog.close();
        },
      },
    });
  const dialog = openDialog(
    t("About this message"),
    [
      h("dl", { class: "facts" }, ...facts(message).map(row)),
      specs.length > 0 && h("h3", { class: "group-label", text: t("Sampling") }),
      specs.length > 0 &&
        h(
          "dl",
          { class: "facts" },
          ...specs
            .filter((spec) => !isEmpty(message.sampling?.[spec.name]))
            .map((spec) => row([spec.label, shown(spec, message.sampling?.[spec.name])])),
        ),
      reuse,
    ].filter(Boolean),
  );
}

/** @param {any} value */
const isEmpty = (value) => value === null || value === "" || (typeof value === "object" && Object.keys(value).length === 0);

/**
 * @param {Store} store @param {Room} room @param {Message} message @param {HTMLElement} anchor
 * @param {{tokens: (message: Message, name: string) => void,
 *   inspect: (which: {message: Message}) => void, summarize: (until: string) => void}} page
 */
export function openMessageMenu(store, room, message, anchor, page) {
  const busy = store.state.live.size > 0;
  const isUser = message.author === "user";
  const stats = numbers(message);
  const { status, session } = store.state;
  const compared = session?.comparisons?.findLast(({ columns }) =>
    columns.some((column) => column.message === message.id),
  );
  const cannotContinue = !botOf(store.state, message.author)?.engine && status?.model?.cannot?.continue;
  openMenu(anchor, t("More about this message"), [
    stats ? { heading: stats } : null,
    !isUser && {
      label: t("Regenerate"),
      icon: "refresh-cw",
      help: t("This one stays, as the other version."),
      disabled: busy,
      onSelect: () => room.reply("regenerate", { message: message.id }),
    },
    !isUser && {
      label: t("Regenerate, beginning with…"),
      icon: "pencil",
      help: cannotContinue || t("Another version that goes on from your words."),
      disabled: busy || Boolean(cannotContinue),
      onSelect: async () => {
        const begin = await askBeginning(store);
        if (begin !== null) room.reply("regenerate", { message: message.id, begin });
      },
    },
    !isUser && {
      label: t("Continue"),
      icon: "play",
      help: cannotContinue || t("Write on where it ends."),
      disabled: busy || Boolean(cannotContinue),
      onSelect: () => room.reply("continue", { message: message.id }),
    },
    !isUser &&
      message.text && {
        label: t("Tokens"),
        icon: "search",
        help: t("What else could have come, and another version from there."),
        disabled: busy,
        onSelect: () => page.tokens(message, nameOf(store.state, message)),
      },
    !isUser && {
      label: t("What it was made from"),
      icon: "file-text",
      help: t("The whole prompt, and what each part takes."),
      onSelect: () => page.inspect({ message }),
    },
    !isUser &&
      message.model && {
        label: t("Replay"),
        icon: "rotate-ccw",
        help: t("Generate it again: do the same tokens come?"),
        onSelect: () => openReplay(store, message, nameOf(store.state, message)),
      },
    compared && {
      label: t("Side by side"),
      icon: "users",
      help: t("With those that answered the same message, and the vote."),
      onSelect: () => openCompare(store, room, compared.id),
    },
    message.text && {
      label: t("Copy as plain text"),
      icon: "copy",
      help: t("What is shown, without the marks of Markdown."),
      onSelect: () => copyShown(anchor),
    },
    {
      label: message.pinned ? t("Unpin") : t("Pin"),
      icon: message.pinned ? "pin-off" : "pin",
      help: message.pinned
        ? t("It is left out with those round it when the context is full.")
        : t("The bots keep it in mind when the beginning is left out."),
      disabled: busy,
      onSelect: () => room.pin(message, !message.pinned),
    },
    ((store.state.session?.bots.length || 0) > 1 || message.for) && {
      label: t("Whom it is for"),
      icon: "lock",
      help: audienceText(store.state, message) || t("Everyone in the room."),
      disabled: busy,
      onSelect: async () => (await import("./memory/audience.js")).changeAudience(store, room, message),
    },
    room.path().at(-1)?.id !== message.id && {
      label: t("Summarize up to here"),
      icon: "arrow-up",
      help: t("In what the bots are sent; the chat stays as it is."),
      disabled: busy,
      onSelect: () => page.summarize(message.id),
    },
    { label: t("Details"), icon: "info", onSelect: () => openDetails(store, room, message) },
    "line",
    {
      label: t("Delete"),
      icon: "trash-2",
      danger: true,
      disabled: busy,
      onSelect: () => eraseMessage(store, room, message),
    },
  ]);
}

/**
 * Copy what a message shows; the button that copies its source says that it is done.
 * @param {HTMLElement} anchor
 */
function copyShown(anchor) {
  const message = /** @type {HTMLElement} */ (anchor.closest(".message"));
  const copy = [...message.querySelectorAll(".actions button")].find((button) => button.textContent === t("Copy"));
  copyText(plainText(/** @type {HTMLElement} */ (message.querySelector(".md"))), copy || h("span"));
}

/** @param {Store} store @param {Room} room @param {Message} message */
async function eraseMessage(store, room, message) {
  const { session } = store.state;
  const undo = await room.erase(message);
  if (!undo) return;
  toast(t("Deleted the message; what followed it moved up."), {
    action: t("Undo"),
    onAction: () =>
      store.state.session?.id === session?.id
        ? retrace(store, room, "undo", undo)
        : toast(t("Open the message's session first.")),
  });
}
