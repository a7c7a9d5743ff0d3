// @ts-check
/**
 * What one bot of the session knows: all that was said, nothing from before it came in, or a summary of
 * that; and notes that only it is sent.
 * @import { Entry, Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { h, icon } from "../base/dom.js";
import { t } from "../base/language.js";
import { dialogButton, openDialog } from "../overlays/dialogs.js";
import { toast } from "../overlays/toast.js";
import { botOf, nameOf } from "../session/store.js";
import { arrivals } from "../session/tree.js";
import { openSummary } from "./summary.js";

const MAX_PLACES = 100;
const MAX_SAID = 60;

/** @param {Store} store @param {Room} room @param {string} id of the bot */
export async function openKnowledge(store, room, id) {
  if (!(await room.whole())) return;
  const sessionId = store.state.session?.id;
  const name = botOf(store.state, id)?.name || "";
  const entry = () => /** @type {Entry | undefined} */ (store.state.session?.bots.find((one) => one.id === id));
  const isHere = () => store.state.session?.id === sessionId && Boolean(entry());

  /** @param {Record<string, any>} fields undefined takes one away */
  function change(fields) {
    if (!isHere()) return;
    const changed = (one) => JSON.parse(JSON.stringify({ ...one, ...fields }));
    const { bots } = /** @type {any} */ (store.state.session);
    room.change({ bots: bots.map((one) => (one.id === id ? changed(one) : one)) });
    show();
  }

  /** The summary that it was told, if it is shown here. */
  function summary() {
    const path = new Set(room.path().map((message) => message.id));
    return store.state.session?.summaries?.find((one) => path.has(one.until) && one.for?.join() === id);
  }

  const all = choice("all", t("All that was said"), t("As if it had been there."));
  const nothing = choice("nothing", t("Nothing from before it came in"), t("It does not know what others said then."));
  const told = choice("summary", t("A summary of what was before"), t("You write it, or the model does; until then it knows nothing."));

  /** @param {string} value @param {string} text @param {string} help */
  function choice(value, text, help) {
    const input = h("input", { type: "radio", name: "knows", value, on: { change: () => choose(value) } });
    const says = h("span", {}, h("span", { class: "choice-name", text }), h("span", { class: "help", text: help }));
    return { input, label: h("label", { class: "choice" }, input, says) };
  }

  /** What is chosen here; it is told a summary once there is one. */
  let mode = entry()?.since ? (summary() ? "summary" : "nothing") : "all";

  /** @param {string} value */
  function choose(value) {
    mode = value;
    if (value === "all") change({ since: undefined });
    else if (!entry()?.since) change({ since: store.state.session?.messages.at(-1)?.id });
    show();
  }

  async function writeSummary() {
    if (!(await room.flushPatch())) return;
    const { session } = store.state;
    const arrival = session && arrivals(session, room.path()).find((one) => one.id === id);
    openSummary(store, room, summary()?.until || arrival?.last, [id], show);
  }

  /** A summary that is not wanted any more. */
  async function dropUnused() {
    const known = isHere() && mode !== "summary" && summary();
    if (!known || !(await room.dropSummary(known.id))) return;
    toast(t("{name} is told no summary any more.", { name }), {
      action: t("Undo"),
      onAction: () => room.summarize(known.until, known.text, [id]),
    });
  }

  const places = h("select", { class: "select", on: { change: () => change({ since: places.value }) } });
  const place = h(
    "label",
    { class: "stacked" },
    h("span", { class: "label", text: t("It came in after") }),
    h("span", { class: "select-frame stacked" }, places, icon("chevron-down")),
  );
  const edit = h("button", { type: "button", class: "button", on: { click: writeSummary } });
  const notes = h("textarea", {
    class: "text-input",
    rows: "5",
    dir: "auto",
    maxlength: "50000",
    on: { input: () => change({ notes: notes.value || undefined }) },
  });

  /** @param {Message} message */
  function saidIn(message) {
    const said = message.text.replace(/\s+/g, " ").trim();
    return `${nameOf(store.state, message)}: ${said.length > MAX_SAID ? `${said.slice(0, MAX_SAID).trimEnd()}…` : said}`;
  }

  function show() {
    const { session } = store.state;
    if (!session || !isHere()) return;
    const { since, notes: own } = /** @type {Entry} */ (entry());
    const path = room.path().filter((message) => session.messages.some((one) => one.id === message.id));
    const latest = session.messages.at(-1);
    const shown = path.slice(-MAX_PLACES);
    if (latest && !path.includes(latest)) shown.push(latest);
    const chosen = session.messages.find((message) => message.id === since);
    if (chosen && !shown.includes(chosen)) shown.unshift(chosen);
    places.replaceChildren(...shown.map((message) => h("option", { value: message.id, text: saidIn(message) })));
    places.value = since || latest?.id || "";
    const known = summary();
    for (const { input } of [all, nothing, told]) input.checked = input.value === mode;
    for (const { input } of [nothing, told]) input.disabled = !latest;
    place.hidden = !since;
    edit.hidden = mode !== "summary";
    edit.textContent = known ? t("Its summary") : t("Write the summary");
    if (document.activeElement !== notes) notes.value = own || "";
  }

  show();
  for (const { input } of [all, nothing, told]) if (input.checked) input.dataset.autofocus = "true";
  const dialog = openDialog(
    t("What {name} knows", { name }),
    [
      h(
        "fieldset",
        { class: "choices knows" },
        h("legend", { class: "label", text: t("Of what was said") }),
        all.label,
        nothing.label,
        told.label,
      ),
      place,
      edit,
      h(
        "label",
        { class: "stacked" },
        h("span", { class: "label", text: t("Its own notes") }),
        notes,
        h("span", {
          class: "help",
          text: t("It alone is sent them, in this session, after its persona: what it wants, hides or remembers."),
        }),
      ),
    ],
    { actions: [dialogButton(t("Close"), "primary", () => dialog.close())], onClose: dropUnused },
  );
}
