// @ts-check
/**
 * A keyboard on the screen. Most browsers make the window smaller for it, as index.html asks them to; Safari
 * lays it over the page and pushes that up. There the page is made as high as what is left, so that the
 * message box and the buttons of dialogs stand above the keyboard.
 */

/** Less is no keyboard: bars of the browser that come and go, and fractions of a pixel. */
const KEYBOARD_PX = 80;

export function stayAboveKeyboard() {
  const seen = window.visualViewport;
  seen?.addEventListener("resize", () => {
    const height = seen.height * seen.scale; // pinching is no keyboard
    const { style } = document.documentElement;
    const isCovered = innerHeight - height > KEYBOARD_PX;
    if (!isCovered && !style.getPropertyValue("--seen")) return;
    if (isCovered) style.setProperty("--seen", `${Math.round(height)}px`);
    else style.removeProperty("--seen");
    scrollTo(0, 0); // it was pushed up
  });
}
