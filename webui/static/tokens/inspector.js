// @ts-check
/**
 * The prompt inspector: exactly what a bot is sent, part by part, what each takes, where its memory begins
 * and what of it is read anew.
 * @import { Message, Prompt, PromptPart } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { botChoice } from "../base/bot-choice.js";
import { h } from "../base/dom.js";
import { count, duration, tokens as tokensText } from "../base/format.js";
import { t, tn, together } from "../base/language.js";
import { ApiError, get } from "../server/api.js";
import { openDialog } from "../overlays/dialogs.js";
import { botOf, botsInRoom } from "../session/store.js";
import { copyText } from "../text/code.js";
import { openKnowledge } from "../memory/knowledge.js";
import { memoryText } from "../chat/transcript.js";
import { openWayOut } from "../chat/way-out.js";

/** Parts that are put on the page at once. */
const PART = 400;
/** In the order in which the bar shows them: what they are called, and which parts of a prompt they are. */
const GROUPS = [
  { id: "persona", label: t("Persona"), kinds: ["persona", "examples", "after"] },
  { id: "system", label: t("System prompt"), kinds: ["system"] },
  { id: "room", label: t("Who is in the room"), kinds: ["room", "you"] },
  { id: "notes", label: t("Its own notes"), kinds: ["notes"] },
  { id: "lore", label: t("Lore book"), kinds: ["lore", "book"] },
  { id: "summary", label: t("Summary"), kinds: ["summary"] },
  { id: "note", label: t("Author's note"), kinds: ["note"] },
  { id: "turn", label: t("What was said"), kinds: ["turn"] },
  { id: "template", label: t("Template"), kinds: ["template", "go_on", "answer"] },
];
const TITLES = {
  persona: t("Persona"),
  examples: t("Example dialogue"),
  you: t("Who you are"),
  system: t("System prompt"),
  room: t("Who is in the room"),
  notes: t("Its own notes"),
  book: t("The bot's lore book"),
  lore: t("Lore book"),
  summary: t("Summary of what was before"),
  note: t("Author's note"),
  go_on: t("What it is asked, as it spoke last"),
  after: t("Instructions at the end"),
};

/**
 * @typedef {{editBot: (bot: any) => void, editMessage: (id: string) => void, openSession: () => void,
 *   summarize: (until?: string, readers?: string[]) => void, create: () => void,
 *   enlarge: (tokens: number) => void}} Page
 *
 * @typedef {Page & {knows: (bot: string) => void, summarizeFor: (until: string, bot: string) => void}} Edits
 *
 * @param {Store} store @param {Room} room @param {{bot?: string, message?: Message}} which of the next reply
 *   of a bot (the one that spoke last, if none is named), or of a reply that is there
 * @param {Page} page
 */
export function openInspector(store, room, which, page) {
  const abort = new AbortController();
  const place = h("div", { class: "prompt" });
  const status = h("p", { class: "help", role: "status" });
  /** @type {Prompt | null} */
  let shown = null;
  const copy = h("button", {
    type: "button",
    class: "button",
    text: t("Copy"),
    hidden: true,
    on: { click: () => shown && copyText(wholeText(shown), copy) },
  });
  const wayOut = h("button", {
    type: "button",
    class: "button",
    text: t("Make room"),
    "aria-haspopup": "menu",
    hidden: true,
    on: { click: () => openWayOut(store, wayOut, leaving({ ...page, summarize: () => page.summarize() })) },
  });
  const choice = which.message ? null : botChoice(botsInRoom(store.state), t("Bot"), (bot) => load({ bot }));
  const title = which.message ? t("What this reply was made from") : t("What a bot is sent");
  const dialog = openDialog(title, [...(choice ? [choice.element] : []), status, place], {
    wide: true,
    actions: [wayOut, copy],
    onClose: () => abort.abort(),
  });

  /** The page's functions, each of which closes this dialog first. @param {any} functions @returns {any} */
  function leaving(functions) {
    const entries = Object.entries(functions).map(([name, run]) => [
      name,
      (...given) => {
        dialog.close();
        run(...given);
      },
    ]);
    return Object.fromEntries(entries);
  }

  /** @type {Edits} */
  const edits = {
    ...page,
    knows: (bot) => openKnowledge(store, room, bot),
    summarizeFor(until, bot) {
      const own = (summary) => summary.until === until && summary.for?.includes(bot);
      page.summarize(until, store.state.session?.summaries?.find(own)?.for);
    },
  };

  /** @param {{bot?: string, message?: Message}} asked */
  async function load(asked) {
    const id = store.state.session?.id;
    status.classList.remove("wrong");
    status.textContent = id ? t("Looking at the prompt…") : t("Nothing has been said yet. Say something first.");
    if (!id) return;
    const { bot, message } = asked;
    const query = message ? `?message=${message.id}` : bot ? `?bot=${bot}` : "";
    try {
      shown = await get(`/api/sessions/${id}/prompt${query}`, abort.signal);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.code !== "aborted") fail(error.message);
      return;
    }
    const prompt = /** @type {Prompt} */ (shown);
    if (prompt.problem) {
      fail(prompt.problem);
      return;
    }
    choice?.choose(prompt.bot);
    status.textContent = together(cacheText(prompt), untoldText(prompt));
    copy.hidden = false;
    wayOut.hidden = !(prompt.left_out || prompt.shortened || isFull(prompt));
    place.replaceChildren(
      ...(asked.message ? [written(asked.message)] : []),
      ...overview(prompt),
      ...sections(prompt, leaving(edits), botOf(store.state, prompt.bot)),
      ...guidance(prompt),
    );
  }

  /** @param {string} message */
  function fail(message) {
    shown = null;
    copy.hidden = wayOut.hidden = true;
    place.replaceChildren();
    status.textContent = message;
    status.classList.add("wrong");
  }

  load(which);
}

/** @param {Prompt} prompt */
const wholeText = (prompt) => prompt.parts.map((part) => part.text).join("");
/** @param {Prompt} prompt */
const isFull = ({ prompt_tokens: tokens, max_seq_len: most }) => Boolean(most) && tokens >= 0.95 * most;

/** What the bot is not told. @param {Prompt} prompt */
function untoldText({ name, before, others }) {
  return together(
    before &&
      tn(
        "{name} came in later: one message from before is not in.",
        "{name} came in later: {count} messages from before are not in.",
        before,
        { name },
      ),
    others && tn("One message is for others.", "{count} messages are for others.", others),
  );
}

/** What the next reply takes from the cache. @param {Prompt} prompt */
function cacheText({ prompt_tokens: tokens, cached_tokens: cached, is_template: isTemplate, host, about }) {
  if (!isTemplate)
    return t(
      "These messages go to {host}, which puts its own template round them; the tokens are estimates, and what its cache holds is not known.",
      { host },
    );
  if (cached === null) return t("How much of it is in the cache is not known at the moment.");
  const anew = tokens - cached;
  if (!cached && about) return t("About {tokens} to read: nothing of it is in the cache.", { tokens: tokensText(anew) });
  if (!cached) return t("{tokens} to read: nothing of it is in the cache.", { tokens: tokensText(anew) });
  const values = { cached: tokensText(cached), anew: count(anew) };
  return t("From the cache: {cached}. Read anew: {anew}; after an edit, all from there on.", values);
}

/** What was kept with a reply. @param {Message} message */
function written({ prompt_tokens: tokens, cached_tokens: cached, prompt_seconds: seconds, model }) {
  const kept = tokens && [
    t("When it was written, the prompt had {tokens}, {cached} of them from the cache.", {
      tokens: tokensText(tokens),
      cached: cached || 0,
    }),
    seconds && t("It was read in {time}.", { time: duration(seconds) }),
    model && t("The model was {model}.", { model }),
  ];
  const sentences = [...(kept || []), t("Below is what would be sent to write it again now.")];
  return h("p", { class: "help", text: together(...sentences) });
}

/** The bar, and what each kind of parts takes. @param {Prompt} prompt */
function overview(prompt) {
  const { prompt_tokens: tokens, max_seq_len: most, max_new_tokens: reply, parts } = prompt;
  const total = Math.max(most || 0, tokens, 1);
  const groups = GROUPS.map(({ id, label, kinds }) => {
    const taken = parts.filter((part) => kinds.includes(part.kind)).reduce((sum, part) => sum + part.tokens, 0);
    return { id, label, taken };
  }).filter(({ taken }) => taken);
  const left = (most || tokens) - tokens;
  const room = Math.max(0, Math.min(left, reply));
  if (most) groups.push({ id: "reply", label: t("Room for the reply"), taken: room });
  if (left > room) groups.push({ id: "free", label: t("Free"), taken: left - room });
  const bar = h("div", { class: "prompt-bar", "aria-hidden": "true" });
  for (const { id, taken } of groups) {
    const piece = h("span", { class: `kind-${id}` });
    piece.style.width = `${(100 * taken) / total}%`;
    bar.append(piece);
  }
  const row = ({ id, label, taken }) =>
    h(
      "div",
      {},
      h("dt", {}, h("span", { class: `prompt-swatch kind-${id}`, "aria-hidden": "true" }), label),
      h("dd", { class: "tabular", text: count(taken) }),
    );
  const used = prompt.about ? t("about {tokens}", { tokens }) : count(tokens);
  const sum = most ? t("{used} of {all} tokens", { used, all: most }) : t("{used} tokens", { used });
  return [
    h("p", { class: "prompt-sum tabular", text: sum }),
    bar,
    h("dl", { class: "prompt-legend" }, ...groups.map(row)),
  ];
}

/**
 * The prompt itself, a long one in steps.
 * @param {Prompt} prompt @param {Edits} page @param {any} bot
 */
function sections(prompt, page, bot) {
  const list = h("div", { class: "prompt-parts", dir: "auto" });
  const more = h("button", { type: "button", class: "button", hidden: true, on: { click: add } });
  const first = prompt.parts.findIndex((part) => part.message && part.message === prompt.first_message);
  const memory = first > 0 && prompt.parts[first - 1].kind === "template" ? first - 1 : first;
  const arrived = prompt.before ? prompt.parts.findIndex(({ kind }) => kind === "turn" || kind === "go_on") : -1;
  let at = 0;
  let before = 0;

  function add() {
    for (const end = Math.min(prompt.parts.length, at + PART); at < end; at += 1) {
      const part = prompt.parts[at];
      if (at === arrived) list.append(line(t("{name} came in here", { name: prompt.name })));
      if (at === memory && prompt.left_out) list.append(line(memoryText(prompt.left_out)));
      const text = textOf(part, prompt, at);
      const { lastElementChild: last } = list;
      if (!part.text.trim() && last?.matches(".prompt-part")) last.lastElementChild.append(...text);
      else list.append(section(part, text, prompt.prompt_tokens - before, page, bot));
      before += part.tokens;
    }
    more.hidden = at === prompt.parts.length;
    more.textContent = tn("Show one more part", "Show {count} more parts", Math.min(PART, prompt.parts.length - at));
  }

  add();
  return [list, more];
}

/**
 * What guidance leads away from: the same conversation behind other system messages.
 * @param {Prompt} prompt
 */
function guidance({ guide, prompt_tokens: tokens }) {
  if (!guide) return [];
  const text = (part) => (isOfTemplate(part) ? mark(part.text) : part.text);
  const whole = h("div", { class: "prompt-text" }, ...guide.parts.map(text));
  return [
    h(
      "details",
      { class: "prompt-guide" },
      h("summary", { text: t("Negative prompt, which guidance leads away from: {tokens}", { tokens: tokensText(guide.prompt_tokens) }) }),
      h("p", {
        class: "help",
        text: t("With guidance the conversation is read twice, {tokens} in all.", {
          tokens: tokensText(tokens + guide.prompt_tokens),
        }),
      }),
      whole,
    ),
  ];
}

/** @param {string} text */
const line = (text) => h("p", { class: "memory-line" }, h("span", { text }));

/**
 * A part's text, with a line where what is read anew begins.
 * @param {PromptPart} part @param {Prompt} prompt @param {number} at
 */
function textOf(part, prompt, at) {
  const text = (piece) => (isOfTemplate(part) ? [mark(piece)] : [piece]);
  const cut = prompt.read_from;
  if (cut?.part !== at || !prompt.cached_tokens) return text(part.text);
  const characters = [...part.text]; // not half an emoji
  const head = characters.slice(0, cut.chars).join("");
  const left = prompt.prompt_tokens - prompt.cached_tokens;
  const anew = line(t("Up to here from the cache · read anew: {tokens}", { tokens: tokensText(left) }));
  return [...(head ? text(head) : []), anew, ...text(characters.slice(cut.chars).join(""))];
}

/** @param {PromptPart} part */
const isOfTemplate = ({ kind }) => kind === "template" || kind === "answer";

/** What is not seen is marked. @param {string} text */
const mark = (text) =>
  h("code", { class: "prompt-mark", text: text.replaceAll("\n", "↵\n").replace(/\n$/, "") });

/**
 * @param {PromptPart} part @param {(Node | string)[]} text @param {number} toTheEnd tokens from here on
 * @param {Edits} page @param {any} bot
 */
function section(part, text, toTheEnd, page, bot) {
  const { kind, message } = part;
  if (isOfTemplate(part)) {
    const note = kind === "answer" && h("p", { class: "help", text: t("Here its answer begins.") });
    return h("div", { class: "prompt-template" }, ...text, note);
  }
  const edit = {
    persona: bot && (() => page.editBot(bot)),
    examples: bot && (() => page.editBot(bot)),
    after: bot && (() => page.editBot(bot)),
    system: page.openSession,
    lore: page.openSession,
    you: page.openSession,
    note: page.openSession,
    notes: bot && (() => page.knows(bot.id)),
    summary: message && (() => page.summarizeFor(message, bot?.id)),
    turn: message && (() => page.editMessage(message)),
  }[kind];
  const name = [TITLES[kind], part.name].filter(Boolean).join(": ");
  const anew = tn("{count} token is read anew then", "{count} tokens are read anew then", toTheEnd);
  return h(
    "div",
    { class: `prompt-part kind-${kind}`, role: "group", "aria-label": name },
    h(
      "div",
      { class: "prompt-head" },
      h("span", { class: "prompt-name", text: name }),
      h("span", {
        class: "help tabular",
        text: [
          t("{tokens}, {all} from here on", { tokens: tokensText(part.tokens), all: toTheEnd }),
          part.pinned && message && t("pinned"),
        ]
          .filter(Boolean)
          .join(" · "),
      }),
      edit &&
        h("button", {
          type: "button",
          class: "text-button",
          text: t("Edit"),
          "aria-label": `${t("Edit {name}", { name })}: ${anew}`,
          title: anew,
          on: { click: edit },
        }),
    ),
    h("div", { class: "prompt-text" }, ...text),
  );
}
