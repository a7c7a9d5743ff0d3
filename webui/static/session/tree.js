// @ts-check
/**
 * A session is a tree of messages; the page shows one path of it. Pure functions over plain data.
 * @import { Live, Message, Outgoing, Session } from "../types.js"
 */

/** @type {WeakMap<Message[], {byId: Map<string, Message>, children: Map<string | null, Message[]>}>} */
const indexes = new WeakMap();

/** @param {Message[]} messages */
function indexOf(messages) {
  let index = indexes.get(messages);
  if (!index) {
    index = { byId: new Map(), children: new Map() };
    for (const message of messages) {
      index.byId.set(message.id, message);
      const siblings = index.children.get(message.parent);
      if (siblings) siblings.push(message);
      else index.children.set(message.parent, [message]);
    }
    indexes.set(messages, index);
  }
  return index;
}

/** @param {Session} session @param {string | null} id */
export function messageOf(session, id) {
  return (id && indexOf(session.messages).byId.get(id)) || null;
}

/**
 * The message that a running reply will become, as it stands.
 * @param {Live} live
 * @returns {Message}
 */
function provisional(live) {
  return {
    id: live.messageId,
    parent: live.parent,
    author: live.bot,
    name: live.name,
    text: "",
    for: live.for,
    created: live.started,
  };
}

/**
 * The messages to show, oldest first. A running reply below the leaf lengthens the path.
 * @param {Session} session
 * @param {Map<string, Live>} lives by message id
 * @param {string | null} viewLeaf shown instead of the session's leaf (a reply that is being written)
 * @returns {Message[]}
 */
export function shownPath(session, lives, viewLeaf) {
  const { byId } = indexOf(session.messages);
  const written = (id) =>
    byId.get(id) || (lives.get(id)?.ready ? provisional(/** @type {Live} */ (lives.get(id))) : null);
  let leaf = viewLeaf && written(viewLeaf) ? viewLeaf : session.leaf;
  for (const live of lives.values()) {
    if (live.ready && live.parent === leaf && !byId.has(live.messageId)) leaf = live.messageId;
  }
  const path = [];
  for (
    let message = leaf ? written(leaf) : null;
    message;
    message = message.parent ? written(message.parent) : null
  ) {
    path.push(message);
  }
  return path.reverse();
}

/**
 * Whether nothing but some messages differs between two states of a session: those were added or changed. A
 * text that is yet to come has been seen by nobody here.
 * @param {Session} before @param {Session} now @param {(id: string) => boolean} isAmong
 */
export function differsOnlyIn(before, now, isAmong) {
  const unseen = new Set([...before.messages, ...now.messages].filter(({ far }) => far).map(({ id }) => id));
  const others = ({ messages }) =>
    messages.filter(({ id }) => !isAmong(id)).map(({ id, parent, text }) => [id, parent, unseen.has(id) || text]);
  const sameLeaf = now.leaf === before.leaf || (now.leaf !== null && isAmong(now.leaf));
  return sameLeaf && JSON.stringify(others(before)) === JSON.stringify(others(now));
}

/**
 * The bots that came in late, each with the last message of the path that it does not know.
 * @param {Session} session @param {Message[]} path @returns {{id: string, last: string}[]}
 */
export function arrivals(session, path) {
  return session.bots
    .filter((entry) => entry.since)
    .map(({ id, since }) => {
      const at = session.messages.findIndex((message) => message.id === since);
      const before = new Set(session.messages.slice(0, at + 1).map((message) => message.id));
      return { id, last: path.findLast((message) => before.has(message.id))?.id || "" };
    });
}

/** The id of what the user just said, as long as the server has not given it one. */
export const OUTGOING = "outgoing";

/**
 * The path with what is on its way to the server.
 * @param {Message[]} path @param {Outgoing | null} outgoing
 * @returns {Message[]}
 */
export function withOutgoing(path, outgoing) {
  if (!outgoing) return path;
  return [...path, { id: OUTGOING, parent: path.at(-1)?.id || null, author: "user", name: "", ...outgoing }];
}

/**
 * All versions of a message (the children of its parent), oldest first, a running one last.
 * @param {Session} session
 * @param {Map<string, Live>} lives
 * @param {Message} message
 * @returns {string[]}
 */
export function versions(session, lives, message) {
  if (message.id === OUTGOING) return [];
  const ids = (indexOf(session.messages).children.get(message.parent) || []).map((sibling) => sibling.id);
  for (const live of lives.values()) {
    if (live.ready && live.parent === message.parent && !ids.includes(live.messageId)) ids.push(live.messageId);
  }
  return ids;
}

/**
 * What the vote made of a message that was written side by side with others: "won", "lost", "open" before
 * it, or "".
 * @param {Session} session @param {string} id
 */
export function voteOn(session, id) {
  const one = session.comparisons?.findLast(({ columns }) => columns.some((column) => column.message === id));
  if (!one) return "";
  return one.winner ? (one.winner === id ? "won" : "lost") : "open";
}

/**
 * The session with one message put in or replaced, and the leaf on it if asked for.
 * @param {Session} session
 * @param {Message} message
 * @param {number} revision
 * @param {boolean} makeLeaf
 * @returns {Session}
 */
export function withMessage(session, message, revision, makeLeaf) {
  const known = session.messages.some((other) => other.id === message.id);
  const messages = known
    ? session.messages.map((other) => (other.id === message.id ? message : other))
    : [...session.messages, message];
  return {
    ...session,
    messages,
    revision: Math.max(revision, session.revision),
    leaf: makeLeaf ? message.id : session.leaf,
    updated: Date.now() / 1000,
  };
}
