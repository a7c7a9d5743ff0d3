// @ts-check
/**
 * Back, as phones have it: it closes what lies on top of the page. Some browsers tell of that; in the others
 * app.js has it from their history.
 */

/** What would be closed, the top of it last. @type {(() => void)[]} */
const layers = [];

/**
 * Have Back close something that is open now. Answers what ends that, once it is closed.
 * @param {() => void} close
 * @param {boolean} [byItself] whether the browser closes it where it tells of Back, as it does with dialogs
 */
export function closesByBack(close, byItself = false) {
  const { CloseWatcher } = /** @type {any} */ (window);
  const watcher = CloseWatcher && !byItself ? new CloseWatcher() : null;
  if (watcher) watcher.onclose = close;
  layers.push(close);
  return () => {
    const at = layers.indexOf(close);
    if (at >= 0) layers.splice(at, 1);
    watcher?.destroy();
  };
}

/** Close what lies on top. Answers whether something did. */
export function closeTop() {
  const close = layers.at(-1);
  close?.();
  return Boolean(close);
}
