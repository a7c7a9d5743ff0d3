// @ts-check
/** What can be done about a full context. */

import { openMenu } from "../overlays/menu.js";

/**
 * @param {HTMLElement} anchor
 * @param {{create: () => void, openSession: () => void, summarize: () => void}} page
 */
export function openWayOut(anchor, page) {
  openMenu(anchor, "The context is full", [
    { heading: "The model's context is full: the beginning is left out" },
    {
      label: "Summarize the older half",
      icon: "file-text",
      help: "The model writes what the bots are sent in its place; you can correct it.",
      onSelect: page.summarize,
    },
    {
      label: "New session",
      icon: "plus",
      help: "With the same bots; this one stays.",
      onSelect: page.create,
    },
    {
      label: "Shorten the prompts",
      icon: "pencil",
      help: "What the system prompt and a bot's character take is lost for the conversation.",
      onSelect: page.openSession,
    },
    {
      label: "Start with a larger context",
      icon: "info",
      help: "With --max-seq-len 8192, say, or with --cache q8, which takes half of the memory.",
      disabled: true,
      onSelect: () => {},
    },
  ]);
}
