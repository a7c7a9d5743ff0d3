// @ts-check
/**
 * The line under the composer: how full the model's memory is, how the prompt was read, how fast it writes.
 * @import { Message } from "../types.js"
 * @import { Store } from "../session/store.js"
 * @import { Room } from "../session/room.js"
 */

import { byId, h, setText } from "../base/dom.js";
import { count, duration, speed } from "../base/format.js";
import { t } from "../base/language.js";

/** A context with less left than this is full: what was said first is left out, and replies are cut. */
const FULL = 0.95;

/**
 * @param {Store} store @param {Room} room
 * @param {{create: () => void, openSession: () => void, inspect: () => void, summarize: () => void,
 *   enlarge: (tokens: number) => void}} page
 */
export function createStatusLine(store, room, page) {
  const line = byId("status-line");
  const fill = h("span", { class: "meter-fill" });
  const meter = h(
    "span",
    { class: "meter", role: "meter", "aria-label": t("The model's memory in use"), "aria-valuemin": "0" },
    fill,
  );
  const used = h("button", { type: "button", class: "text-button used", on: { click: page.inspect } });
  const prompt = h("span", { class: "more" });
  const rate = h("span", { class: "rate" });
  const firstToken = h("span", { class: "more" });
  const wayOut = h("button", {
    type: "button",
    class: "text-button",
    text: t("What now?"),
    "aria-haspopup": "menu",
    hidden: true,
    on: { click: async () => (await import("./way-out.js")).openWayOut(store, wayOut, page) },
  });
  line.append(meter, used, wayOut, prompt, rate, firstToken);

  /** @type {any[]} of the reply that runs, as they were shown last */
  let shownNumbers = [];
  const runningNumbers = () => {
    const live = [...store.state.live.values()].find((one) => one.stats || one.progress);
    return [live?.stats, live?.progress];
  };

  /** The numbers to show: of the reply that runs, else of the last one on the path. */
  function numbers() {
    const [stats, progress] = (shownNumbers = runningNumbers());
    if (stats || progress) return { ...stats, progress, running: true };
    const last = room.path().findLast((message) => message.new_tokens);
    return last ? { ...last, running: false } : {};
  }

  /** Whether something was left out that no summary stands for. */
  function forgets() {
    const { context, session } = store.state;
    if (!context?.left_out) return false;
    const path = room.path();
    const at = (/** @type {string | null} */ id) => path.findIndex((message) => message.id === id);
    const summaries = (session?.summaries || []).filter((one) => !one.for).map(({ until }) => at(until));
    return at(context.first_message) > Math.max(-1, ...summaries) + 1;
  }

  function update() {
    const { context, status } = store.state;
    const most = context?.max_seq_len || status?.model?.max_seq_len || 0;
    const n = /** @type {any} */ (numbers());
    const tokens = n.running
      ? (n.prompt_tokens || n.progress?.total || 0) + (n.new_tokens || 0)
      : context?.prompt_tokens || 0;
    line.hidden = !most;
    if (meter.ariaValueNow !== String(Math.min(tokens, most)) || meter.ariaValueMax !== String(most)) {
      meter.ariaValueMax = String(most);
      meter.ariaValueNow = String(Math.min(tokens, most));
      fill.style.width = `${most ? Math.min(100, (100 * tokens) / most) : 0}%`;
    }
    const unknown = (!n.running && context?.problem) || "";
    const about = !n.running && context?.about;
    const shown = unknown ? "?" : about ? t("about {tokens}", { tokens }) : count(tokens);
    const guide = !n.running && context?.guide_tokens;
    setText(
      used,
      guide
        ? t("{used} of {all} tokens, and {guide} for guidance", { used: shown, all: most, guide })
        : t("{used} of {all} tokens", { used: shown, all: most }),
    );
    used.title = unknown || (about && status?.model?.cannot?.context) || t("What the model is sent");
    const isFull = Boolean(most) && !unknown && (n.finish_reason === "context" || tokens >= FULL * most);
    line.classList.toggle("is-full", isFull);
    wayOut.hidden = !isFull && !forgets();
    line.classList.toggle("has-way-out", !wayOut.hidden);
    const reading = n.running && n.progress && n.progress.done < n.progress.total;
    setText(prompt, reading ? readingText(n.progress) : promptText(n));
    setText(rate, n.tokens_per_second ? speed(n.tokens_per_second) : "");
    setText(firstToken, n.seconds_to_first_token ? t("First token {time}", { time: duration(n.seconds_to_first_token) }) : "");
  }

  store.on(["session", "live", "context", "status", "viewLeaf"], update);
  return {
    /** A reply has grown; its numbers come less often. */
    flush() {
      if (runningNumbers().some((one, at) => one !== shownNumbers[at])) update();
    },
  };
}

/** @param {{done: number, total: number}} progress */
const readingText = (progress) => t("Reading the prompt: {done} of {total}", progress);

/** @param {any} n */
function promptText(n) {
  if (!n.prompt_tokens) return "";
  return [
    n.prompt_seconds
      ? t("Prompt {tokens} in {time}", { tokens: n.prompt_tokens, time: duration(n.prompt_seconds) })
      : t("Prompt {tokens}", { tokens: n.prompt_tokens }),
    n.cached_tokens && t("{count} from cache", { count: n.cached_tokens }),
  ]
    .filter(Boolean)
    .join(", ");
}
