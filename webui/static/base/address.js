// @ts-check
/** The page's address: which session it names, and the entries of the browser's history. */

const SESSION = /^#([0-9a-f]{16})$/;
/** Marks the entries that the page made: one without it is an address that was given by hand. */
const OURS = "parlor";
history.replaceState(OURS, "");

/** The id of the session that the address names, or "". */
export const sessionInAddress = () => location.hash.match(SESSION)?.[1] || "";

/**
 * Have the address name a session, or none.
 * @param {string} id or "" for the page of a new session
 * @param {boolean} entry whether Back leads to what was named before; else this takes its place
 */
export function nameInAddress(id, entry) {
  const isNamed = sessionInAddress() === id && (id || !location.hash);
  const address = id ? `#${id}` : location.pathname;
  if (entry && !isNamed) history.pushState(OURS, "", address);
  else history.replaceState(OURS, "", isNamed ? undefined : address);
}
