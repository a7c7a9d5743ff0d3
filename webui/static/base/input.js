// @ts-check
/** What a key press means, on every kind of keyboard. */

/**
 * Whether an input method is still composing: then Enter takes its suggestion. Safari says so only by
 * keyCode.
 * @param {KeyboardEvent} event
 */
export function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

/** Whether this device is used by touch alone, where Enter must be able to make a new line. */
export function isTouchOnly() {
  return matchMedia("(pointer: coarse)").matches && !matchMedia("(any-pointer: fine)").matches;
}

/**
 * What was typed, without empty lines around it; the first line keeps its indentation.
 * @param {string} typed
 */
export const trimLines = (typed) => typed.replace(/^(?:[^\S\n]*\n)+/, "").trimEnd();

/**
 * 1 for the arrow key that goes on in the direction of reading, -1 for the one that goes back, else 0.
 * @param {string} key
 */
export function alongReading(key) {
  const right = document.documentElement.dir === "rtl" ? -1 : 1;
  return key === "ArrowRight" ? right : key === "ArrowLeft" ? -right : 0;
}

/** @param {EventTarget | null} target */
export function isTyping(target) {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox], [type=radio])"))
  );
}
