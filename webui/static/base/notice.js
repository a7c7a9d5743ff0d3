// @ts-check
/** What the browser tells outside of the page, one note at a time. */

/**
 * Answers the notification; null where there is none, as on Android, whose browsers let no page make one.
 * @param {string} title @param {string} body
 */
export function notify(title, body) {
  try {
    return new Notification(title, { body, tag: "parlor" });
  } catch {
    return null;
  }
}
