// @ts-check
/**
 * Files that were given and are not read yet, as they are, for when the page is loaded again in the middle of
 * it. They belong to this tab, which reads them then; another one that shows the same session does not.
 */

const KEY = "parlor.unread";
const FILES = "files";
/** Those that this page is reading itself. @type {Set<string>} */
const mine = new Set();

/** @returns {{key: string, id: string | null}[]} which there are, of which session */
const noted = () => JSON.parse(sessionStorage.getItem(KEY) || "[]");
const note = (list) => sessionStorage.setItem(KEY, JSON.stringify(list));

/** @param {(files: IDBObjectStore) => IDBRequest} ask @returns {Promise<any>} */
async function stored(ask) {
  const opened = indexedDB.open("parlor", 1);
  opened.onupgradeneeded = () => opened.result.createObjectStore(FILES);
  const database = await ended(opened);
  try {
    return await ended(ask(database.transaction(FILES, "readwrite").objectStore(FILES)));
  } finally {
    database.close();
  }
}

/** @param {IDBRequest} request @returns {Promise<any>} */
const ended = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Answers what dropUnread() takes. @param {string | null | undefined} id @param {File[]} files */
export async function keepUnread(id, files) {
  const key = `${Date.now()}.${Math.random()}`;
  mine.add(key);
  try {
    await stored((store) => store.put(files, key));
    note([...noted(), { key, id }]);
  } catch {
    // A browser without room, or without storage: a reload loses them.
  }
  return key;
}

/** They are read. @param {string} key */
export async function dropUnread(key) {
  try {
    note(noted().filter((one) => one.key !== key));
    await stored((store) => store.delete(key));
  } catch {
    // nothing was kept
  }
}

/** Those of a session that were left, which are the caller's now. @param {string | null | undefined} id */
export async function takeUnread(id) {
  /** @type {File[]} */
  const files = [];
  for (const { key } of noted().filter((one) => one.id === id && !mine.has(one.key))) {
    files.push(...((await stored((store) => store.get(key)).catch(() => null)) || []));
    await dropUnread(key);
  }
  return files;
}
