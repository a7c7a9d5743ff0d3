// @ts-check
/**
 * What can be done about a full context.
 * @import { Store } from "../session/store.js"
 */

import { t } from "../base/language.js";
import { openMenu } from "../overlays/menu.js";

/**
 * @param {Store} store @param {HTMLElement} anchor
 * @param {{create: () => void, openSession: () => void, summarize: () => void,
 *   enlarge: (tokens: number) => void}} page
 */
export function openWayOut(store, anchor, page) {
  const { wanted, help } = larger(store);
  openMenu(anchor, t("The context is full"), [
    { heading: t("The model's context is full: the beginning is left out") },
    {
      label: t("Summarize the older half"),
      icon: "file-text",
      help: t("The model writes what the bots are sent in its place; you can correct it."),
      onSelect: page.summarize,
    },
    {
      label: wanted ? t("Raise the context to {wanted} tokens", { wanted }) : t("A larger context"),
      icon: "refresh-cw",
      help,
      disabled: !wanted,
      onSelect: () => page.enlarge(wanted),
    },
    {
      label: t("New session"),
      icon: "plus",
      help: t("With the same bots; this one stays."),
      onSelect: page.create,
    },
    {
      label: t("Shorten the prompts"),
      icon: "pencil",
      help: t("What the system prompt and a bot's character take is lost for the conversation."),
      onSelect: page.openSession,
    },
  ]);
}

/**
 * The next larger context of the loaded model, 0 where there is none, and a sentence about it.
 * @param {Store} store
 */
function larger(store) {
  const { status, slot } = store.state;
  const model = status?.model;
  if (!model || !slot?.id || model.host)
    return { wanted: 0, help: t("It is set where the model's engine is started, with --max-seq-len, say.") };
  const wanted = Math.min(2 * model.max_seq_len, model.max_positions);
  if (wanted <= model.max_seq_len)
    return { wanted: 0, help: t("{name} was made for {max_positions} tokens, which it has.", model) };
  return { wanted, help: t("{name} is loaded again, if the memory is enough; else all stays as it is.", model) };
}
