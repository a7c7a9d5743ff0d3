// @ts-check
/**
 * What was changed in the panels and is not on the server yet, field by field, each with the value that it
 * was changed from. So it outlives a lost request, a restart and a reload, and what another tab did
 * meanwhile to other fields, other parameters or other bots stays.
 * @import { Entry, Session } from "../types.js"
 */

import { recall, remember } from "../base/storage.js";

/** @typedef {{base: any, ours: any}} Change */

/** @param {any} a @param {any} b */
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/**
 * Our change of a field on top of what others made of it: of parameters and bots only those that we changed,
 * of anything else the whole.
 * @param {string} field @param {any} base what we began with @param {any} ours @param {any} theirs
 */
export function merged(field, base, ours, theirs) {
  if (same(base, theirs)) return ours;
  if (same(base, ours)) return theirs;
  if (field === "sampling") return mergedFields(base, ours, theirs);
  if (field === "bots") return mergedBots(base, ours, theirs);
  return ours;
}

/** @param {Record<string, any>} base @param {Record<string, any>} ours @param {Record<string, any>} theirs
 * @returns {any} */
function mergedFields(base, ours, theirs) {
  const result = { ...theirs };
  for (const name of new Set([...Object.keys(base), ...Object.keys(ours)])) {
    if (same(base[name], ours[name])) continue;
    if (name in ours) result[name] = ours[name];
    else delete result[name];
  }
  return result;
}

/** @typedef {Entry[]} Bots */

/** In our order, if we changed it. @param {Bots} base @param {Bots} ours @param {Bots} theirs */
function mergedBots(base, ours, theirs) {
  const find = (bots, id) => bots.find((one) => one.id === id);
  const kept = theirs.filter(({ id }) => !find(base, id) || find(ours, id));
  const added = ours.filter(({ id }) => !find(base, id) && !find(theirs, id));
  const result = [...kept, ...added].map((entry) => {
    const [mine, before] = [find(ours, entry.id), find(base, entry.id)];
    return mine && before ? mergedFields(before, mine, entry) : entry;
  });
  const order = (bots) => bots.filter(({ id }) => find(base, id) && find(ours, id)).map(({ id }) => id);
  if (same(order(base), order(ours))) return result;
  const place = ({ id }) => (find(ours, id) ? ours.findIndex((one) => one.id === id) : ours.length);
  return result.sort((a, b) => place(a) - place(b));
}

/** @param {string} sessionId */
const key = (sessionId) => `unsaved.${sessionId}`;

/**
 * What this browser keeps of a session, from whichever tab.
 * @param {string} sessionId @returns {Record<string, Change>}
 */
function kept(sessionId) {
  try {
    return JSON.parse(recall(key(sessionId), "{}"));
  } catch {
    return {};
  }
}

/** Some fields of one session, kept in this browser until the server has them. */
export class Unsaved {
  /** @type {string | null} */
  #session = null;
  /** @type {Record<string, Change>} */
  #changes = {};
  /** The fields that this tab has had in hand; what another one keeps is its own. @type {Set<string>} */
  #mine = new Set();

  /** Another session is shown. @param {string | null} sessionId */
  belongTo(sessionId) {
    if (sessionId === this.#session) return;
    this.#session = sessionId;
    this.#changes = sessionId === null ? {} : kept(sessionId);
    this.#mine = new Set(Object.keys(this.#changes));
  }

  get isEmpty() {
    return Object.keys(this.#changes).length === 0;
  }

  /** @returns {Record<string, any>} the fields as they should be */
  get fields() {
    return Object.fromEntries(Object.entries(this.#changes).map(([field, { ours }]) => [field, ours]));
  }

  /** @param {Session} session as it was before @param {Record<string, any>} fields */
  add(session, fields) {
    for (const [field, ours] of Object.entries(fields))
      this.#changes[field] = { base: this.#changes[field]?.base ?? session[field], ours };
    this.#keep();
  }

  /**
   * The server has these, or refuses them for good.
   * @param {string} sessionId @param {Record<string, any>} fields
   */
  settle(sessionId, fields) {
    if (sessionId !== this.#session) {
      const other = new Unsaved(); // the page shows another session by now
      other.belongTo(sessionId);
      other.settle(sessionId, fields);
      return;
    }
    for (const [field, value] of Object.entries(fields)) {
      const change = this.#changes[field];
      if (!change) continue;
      if (same(change.ours, value)) delete this.#changes[field];
      else change.base = value; // changed again since
    }
    this.#keep();
  }

  /** The server's session with our changes on top. @param {Session} session @returns {Session} */
  onTopOf(session) {
    for (const [field, change] of Object.entries(this.#changes)) {
      change.ours = merged(field, change.base, change.ours, session[field]);
      change.base = session[field];
      if (same(change.ours, change.base)) delete this.#changes[field];
    }
    this.#keep();
    return { ...session, ...this.fields };
  }

  #keep() {
    if (!this.#session) return;
    const all = kept(this.#session);
    for (const field of Object.keys(this.#changes)) this.#mine.add(field);
    for (const field of this.#mine) delete all[field];
    Object.assign(all, this.#changes);
    remember(key(this.#session), Object.keys(all).length ? JSON.stringify(all) : "");
  }
}

/** @param {string} sessionId of a session that is gone */
export const forgetUnsaved = (sessionId) => remember(key(sessionId), "");
