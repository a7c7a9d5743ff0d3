// @ts-check
/**
 * The replay of a reply: it is generated once more from what was kept with it, and this tells whether the
 * same tokens came, or where and why others did. Nothing of it is kept; closing the window ends it.
 * @import { Message, Replayed, Side } from "../types.js"
 * @import { Store } from "../session/store.js"
 */

import { h, setText } from "../base/dom.js";
import { count } from "../base/format.js";
import { t, tn } from "../base/language.js";
import { ApiError } from "../server/api.js";
import { eventsAt } from "../server/stream.js";
import { openDialog } from "../overlays/dialogs.js";
import { copyText } from "../text/code.js";
import { marked, percent, spoken } from "../text/token-text.js";

/** Characters before the first token that differs; the server sends no more. */
const SHOWN_BEFORE = 160;

/**
 * @param {Store} store @param {Message} message
 * @param {string} name whose reply it is
 */
export function openReplay(store, message, name) {
  let abort = new AbortController();
  const status = h("p", { class: "replay-sum", role: "status" });
  const progress = h("p", { class: "help tabular" });
  const place = h("div", { class: "replay" });
  const copy = h("button", {
    type: "button",
    class: "button",
    text: t("Copy"),
    hidden: true,
    on: { click: () => copyText(report(status, place), copy) },
  });
  const again = h("button", {
    type: "button",
    class: "button",
    text: t("Once more"),
    hidden: true,
    on: { click: run },
  });
  openDialog(t("Replay of {name}'s reply", { name }), [status, progress, place], {
    wide: true,
    actions: [again, copy],
    onClose: () => abort.abort(),
  });
  run();

  async function run() {
    abort = new AbortController();
    again.hidden = copy.hidden = true;
    place.replaceChildren();
    status.classList.remove("wrong");
    setText(status, t("The reply is generated once more…"));
    const id = store.state.session?.id;
    try {
      for await (const events of eventsAt(`/api/sessions/${id}/messages/${message.id}/replay`, abort.signal))
        for (const { type, data } of events) {
          if (type === "done") return show(data);
          if (type === "error") return fail(data.message);
          setText(progress, progressText(type, data));
        }
      fail(t("Parlor's server does not answer."));
    } catch (error) {
      if (abort.signal.aborted) return;
      fail(error instanceof ApiError ? error.message : t("Parlor's server does not answer."));
    }
  }

  /** @param {string} text */
  function fail(text) {
    status.classList.add("wrong");
    end(text);
  }

  /** @param {Replayed} found */
  function show(found) {
    end(headline(found));
    copy.hidden = false;
    place.replaceChildren(...difference(found), ...reasons(found, message), facts(found, message));
  }

  /** @param {string} text */
  function end(text) {
    again.hidden = false;
    setText(status, text);
    setText(progress, "");
  }
}

/** @param {string} type @param {any} data */
function progressText(type, data) {
  if (type === "progress")
    return t("Reading the prompt: {done} of {total} tokens", { done: count(data.done), total: count(data.total) });
  return data.of
    ? t("Writing: {done} of {total} tokens", { done: count(data.tokens), total: count(data.of) })
    : tn("Writing: one token", "Writing: {count} tokens", data.tokens);
}

/** @param {Replayed} found */
function headline({ identical, by, tokens, cut, edited, difference }) {
  if (identical && by === "text") return t("Identical, letter by letter.");
  if (identical && edited)
    return tn(
      "Identical to what the model wrote: its one token. The text here was edited since.",
      "Identical to what the model wrote: all {count} tokens. The text here was edited since.",
      tokens,
    );
  if (identical && cut)
    return tn(
      "Identical as far as it went: its one token.",
      "Identical as far as it went: all {count} tokens.",
      tokens,
    );
  if (identical) return tn("Identical: its one token.", "Identical: all {count} tokens.", tokens);
  if (edited) return t("Other tokens came. Where the first of them stands is not known: the text was edited.");
  if (!difference) return t("The same text came, but in other tokens.");
  const number = count(difference.index + 1);
  return difference.channel === "thinking"
    ? t("It differs in its thought, from token {number} of it on.", { number })
    : t("It differs from token {number} on.", { number });
}

/** What stood at the first place that differs, and what came there now. @param {Replayed} found */
function difference({ difference: found }) {
  if (!found) return [];
  return [
    h(
      "dl",
      { class: "replay-sides" },
      h("dt", { text: t("Then") }),
      h("dd", {}, excerpt(found.before, found.then), shares(found.then)),
      h("dt", { text: t("Now") }),
      h("dd", {}, excerpt(found.before, found.now), shares(found.now)),
    ),
  ];
}

/** @param {string} before @param {Side} side */
function excerpt(before, side) {
  const text = side.token?.text || "";
  const rest = side.rest.startsWith(text) ? side.rest.slice(text.length) : side.rest;
  const token = side.token
    ? h("mark", { class: "replay-token", "aria-label": spoken(side.token) }, ...marked(side.token))
    : side.ended && h("mark", { class: "replay-token", text: t("the end") });
  return h(
    "p",
    { class: "replay-text", dir: "auto" },
    before.length < SHOWN_BEFORE ? before : `…${before}`,
    token,
    rest,
  );
}

/** How likely the model found it, then and now. @param {Side} side */
function shares({ was, is, below }) {
  const share = (value) =>
    value !== undefined && value !== null
      ? percent(value)
      : below === undefined
        ? ""
        : t("less than {share}", { share: percent(below) });
  const parts = [
    share(was) && t("probability then: {share}", { share: share(was) }),
    share(is) && t("now: {share}", { share: share(is) }),
  ];
  return h("p", { class: "help tabular", text: parts.filter(Boolean).join(" · ") });
}

/** Why others came, or what is not as it was. @param {Replayed} found @param {Message} message */
function reasons({ identical, facts: all }, message) {
  const changed = all.filter((fact) => fact.same === false);
  const unknown = all.filter((fact) => fact.same === null);
  const shown = changed.map((fact) => h("li", { text: reason(fact, changed) })).filter((one) => one.textContent);
  const parts = [];
  if (shown.length) {
    const heading = identical ? t("Not as it was then, and yet the same came") : t("Why");
    parts.push(h("h3", { class: "group-label", text: heading }), h("ul", { class: "replay-why" }, ...shown));
  }
  if (unknown.length)
    parts.push(
      h("p", {
        class: "help",
        text: t("Whether these are as they were cannot be known, since it was not kept: {things}.", {
          things: unknown.map((fact) => (fact.what === "sampling" ? fact.now : label(fact.what))).join(", "),
        }),
      }),
    );
  if (!identical && !shown.length && !unknown.length)
    parts.push(
      h("p", {
        text: t(
          "All that is kept with the reply is as it was then, so the same tokens should have come. Please report this; Copy has what is known.",
        ),
      }),
    );
  if (message.record?.begun !== undefined)
    parts.push(
      h("p", { class: "help", text: t("The reply was gone on with; its last part alone is generated again.") }),
    );
  return parts;
}

/** @param {Replayed["facts"][0]} fact @param {Replayed["facts"]} changed */
function reason({ what, then, now }, changed) {
  const values = { then, now };
  const model = changed.some((fact) => fact.what === "model");
  switch (what) {
    case "model":
      return t("Another model: {then} then, {now} now.", values);
    case "files":
      return model ? "" : t("The model's files are not those of then, although their name is.");
    case "adapter":
      return t("Another adapter, or other files of it: {then} then, {now} now.", {
        then: then || "–",
        now: now || "–",
      });
    case "isa":
      return t("Other kernels: for {then} then, for {now} now.", values);
    case "kernels":
      return t("Another build of the kernels: {then} then, {now} now.", values);
    case "cache":
      return t("Another kind of cache: {then} then, {now} now.", values);
    case "prompt":
      return t(
        "Another prompt, of {then} tokens then and {now} now: a character, a prompt, notes, a summary or earlier messages were changed since, or the context has another size.",
        { then: then ? count(then) : "?", now: count(now) },
      );
    case "answer":
      return t("Somebody had it end its thought and answer at once; a replay lets it think.");
    case "cached":
      return t(
        "With AMX a prompt is computed in another way than what is written, and of this one {then} tokens came from the cache then, {now} now.",
        { then: count(then || 0), now: count(now) },
      );
    default:
      return t("{what}: {then} then, {now} now.", { what, then: then || "–", now: now || "–" });
  }
}

/** @param {string} what */
function label(what) {
  switch (what) {
    case "model":
      return t("Model");
    case "files":
      return t("Model's files");
    case "adapter":
      return t("Adapter");
    case "isa":
      return t("Instructions");
    case "kernels":
      return t("Kernels");
    case "cache":
      return t("Cache");
    case "prompt":
      return t("Prompt");
    case "cached":
      return t("From the cache");
    case "answer":
      return t("Answer at once");
    case "sampling":
      return t("Sampling");
    default:
      return what;
  }
}

/** All that decides which tokens come, folded. @param {Replayed} found @param {Message} message */
function facts({ facts: all, seed }, message) {
  const value = ({ what, then, now, same }) => {
    const unit = (one) =>
      what === "prompt" || what === "cached" ? t("{number} tokens", { number: count(one || 0) }) : one;
    if (what === "sampling")
      return same ? t("as it was kept with the reply") : t("not known any more: {names}", { names: now });
    if (what === "answer") return t("{then} then, {now} now", { then: t("yes"), now: t("no") });
    if (same) return `${unit(now)}`;
    if (same === null) return t("{now}; then: not known", { now: unit(now) || "–" });
    return t("{then} then, {now} now", { then: unit(then) || "–", now: unit(now) || "–" });
  };
  const row = (name, text) => h("div", {}, h("dt", { text: name }), h("dd", { class: "tabular", text }));
  return h(
    "details",
    { class: "replay-facts" },
    h("summary", { class: "group-label", text: t("What decides it") }),
    h(
      "dl",
      { class: "facts" },
      row(t("Seed"), String(seed)),
      ...all.map((fact) => row(label(fact.what), value(fact))),
      row(t("Message"), message.id),
    ),
  );
}

/** As text, for a report. @param {HTMLElement} status @param {HTMLElement} place */
function report(status, place) {
  const lines = [status.textContent || ""];
  for (const element of place.querySelectorAll(
    ".replay-sides > *, h3, li, p:not(.replay-sides p), .facts > div",
  )) {
    const parts = element.matches(".facts > div, .replay-sides > dd") ? [...element.children] : [element];
    lines.push(
      parts
        .map((part) => part.textContent)
        .filter(Boolean)
        .join(element.matches("dd") ? "\n" : ": "),
    );
  }
  return lines.filter(Boolean).join("\n");
}
