// @ts-check
/** Light, dark, or what the system says. The colours are in css/base.css. */

import { recall, remember } from "./storage.js";

/** @returns {"system" | "light" | "dark"} */
export function chosenTheme() {
  const theme = recall("theme");
  return theme === "light" || theme === "dark" ? theme : "system";
}

/** @param {"system" | "light" | "dark"} theme */
export function chooseTheme(theme) {
  remember("theme", theme === "system" ? "" : theme);
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
