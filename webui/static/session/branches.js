// @ts-check
/**
 * A session's messages as a map. The way that is shown, or was written last, goes straight down; the other
 * versions of a message hang on it, each a branch that goes on the same way. Pure functions over plain data.
 * @import { Message } from "../types.js"
 *
 * A line of the map. `open` is null where nothing hangs on it; `branch` the number of messages of the branch
 * that begins here, 0 where none does; `group` is shared by the lines of one level below one line.
 * @typedef {{message: Message, level: number, open: boolean | null, branch: number, others: number,
 *   at: number, group: {size: number}}} Line
 */

/**
 * `sizes`: of each message, how many there are from it on.
 * @typedef {{byId: Map<string, Message>, children: Map<string | null, Message[]>,
 *   sizes: Map<string, number>}} Tree
 */

/** @param {Message[]} messages @returns {Tree} */
export function treeOf(messages) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const children = new Map();
  for (const message of messages) {
    const siblings = children.get(message.parent);
    if (siblings) siblings.push(message);
    else children.set(message.parent, [message]);
  }
  const order = [...(children.get(null) || [])];
  for (let at = 0; at < order.length; at += 1) order.push(...(children.get(order[at].id) || []));
  const sizes = new Map();
  for (const { id } of order.reverse())
    sizes.set(id, (children.get(id) || []).reduce((sum, child) => sum + (sizes.get(child.id) || 0), 1));
  return { byId, children, sizes };
}

/** From the first message to this one. @param {Tree} tree @param {string | null} id */
export function pathTo({ byId }, id) {
  const path = [];
  for (let message = byId.get(id || ""); message; message = byId.get(message.parent || "")) path.push(message);
  return path.reverse();
}

/** The message that was written last below this one. @param {Tree} tree @param {string} id */
export function endOf({ children }, id) {
  let last = id;
  for (let below = children.get(id); below; below = children.get(last)) last = below[below.length - 1].id;
  return last;
}

/** The path through a message down to what was written last below it. @param {Tree} tree
 * @param {string} id */
export const branchOf = (tree, id) => pathTo(tree, endOf(tree, id));

/** Which child goes straight down. @param {Tree} tree @param {Set<string>} shown
 * @param {string | null} parent */
function straight({ children }, shown, parent) {
  const all = children.get(parent) || [];
  return all.find((message) => shown.has(message.id)) || all[all.length - 1];
}

/**
 * The lines of the map, from the top down.
 * @param {Tree} tree @param {Set<string>} shown ids of the path that is shown
 * @param {(id: string, usually: boolean) => boolean} isOpen
 * @returns {Line[]}
 */
export function mapLines(tree, shown, isOpen) {
  /** @type {Line[]} */
  const lines = [];
  const group = () => ({ size: 0 });
  const first = straight(tree, shown, null);
  /**
   * What is to come, last first.
   * @type {{message: Message, level: number, begins: boolean, group: {size: number}}[]}
   */
  const todo = first ? [{ message: first, level: 1, begins: false, group: group() }] : [];
  for (let run = todo.pop(); run; run = todo.pop()) {
    const { message, level, begins } = run;
    const { id, parent } = message;
    const next = straight(tree, shown, id);
    const others = begins ? [] : (tree.children.get(parent) || []).filter((other) => other !== message);
    const open = begins ? (next ? isOpen(id, false) : null) : others.length ? isOpen(id, true) : null;
    run.group.size += 1;
    const branch = begins ? tree.sizes.get(id) || 1 : 0;
    lines.push({ message, level, open, branch, others: others.length, at: run.group.size, group: run.group });
    if (next && begins && open) todo.push({ message: next, level: level + 1, begins: false, group: group() });
    if (next && !begins) todo.push({ message: next, level, begins: false, group: run.group });
    if (!open || begins) continue;
    const below = group();
    for (const message of others.reverse()) todo.push({ message, level: level + 1, begins: true, group: below });
  }
  return lines;
}

/**
 * What must be open so that a message has a line.
 * @param {Tree} tree @param {Set<string>} shown @param {string} id @returns {string[]}
 */
export function openFor(tree, shown, id) {
  const open = [];
  for (const { id: above, parent } of pathTo(tree, id)) {
    const down = straight(tree, shown, parent);
    if (down.id === above) continue;
    open.push(down.id);
    if (above !== id) open.push(above);
  }
  return open;
}

/** How many messages two paths have in common. @param {Message[]} one @param {Message[]} other */
export function commonPart(one, other) {
  const differ = one.findIndex((message, at) => message.id !== other[at]?.id);
  return differ < 0 ? one.length : differ;
}
