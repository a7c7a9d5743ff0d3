// @ts-check
/**
 * The texts of a long session that do not come with it. The server sends those near the end of what is
 * shown; the others, of messages that are `far`, are read one part after the other, the latest first: in
 * peace, or at once where somebody waits for them. Each has the text of the revision that the page knows.
 * Knows no element.
 * @import { Message, Session } from "../types.js"
 * @import { Answers } from "./answers.js"
 * @import { Store } from "./store.js"
 */

import { ApiError } from "../server/api.js";

/** What a page does first when a session is opened comes before this. */
const FIRST_MS = 1000;
const NEXT_MS = 60;
/** Other tabs may change the session so often while one part is read. */
const MAX_ATTEMPTS = 5;

/** Where a session is, with the texts near its end if it is long; early.js asks for the same.
 * @param {string} id */
export const nearPath = (id) => `/api/sessions/${id}?texts=near`;

export class FarTexts {
  /** @type {{id: string, promise: Promise<boolean>} | null} */
  #reading = null;
  /** How many wait for all of them, and whether somebody waits for the next part. */
  #all = 0;
  #one = false;
  #wake = () => {};

  /**
   * @param {Store} store @param {Answers} answers
   * @param {{refresh: () => Promise<void>, error: (error: any) => void}} page
   */
  constructor(store, answers, page) {
    this.store = store;
    this.answers = answers;
    this.page = page;
  }

  /** Read them in peace, if there are any. */
  begin() {
    this.#read().catch(() => {}); // the next answer of the server's begins anew
  }

  /** Somebody scrolls where the next ones are. */
  more() {
    this.#one = true;
    this.#wake();
    this.begin();
  }

  /** Have all of them. Answers whether they are there; what went wrong is told. */
  async whole() {
    this.#all += 1;
    this.#wake();
    try {
      return await this.#read().catch(() => this.#read()); // it may have gone wrong before anybody waited
    } catch (error) {
      this.page.error(error);
      return false;
    } finally {
      this.#all -= 1;
    }
  }

  /** Have all of them before anything else happens; the page stands still meanwhile. */
  wholeNow() {
    const { known } = this.answers;
    for (let path = this.#path(); known && path; path = this.#path()) {
      const asking = new XMLHttpRequest();
      asking.open("GET", path, false);
      asking.setRequestHeader("Known-Revision", `${known.revision}`);
      try {
        asking.send();
      } catch {
        return; // the server is away
      }
      if (asking.status !== 200) return;
      if (!this.#fill(known, JSON.parse(asking.responseText).messages)) return;
    }
  }

  /** Where the next part is, or "" if nothing is far. */
  #path() {
    const { known } = this.answers;
    const isShown = known && known.id === this.store.state.session?.id;
    const last = isShown ? known.messages.findLastIndex(({ far }) => far) : -1;
    return last < 0 ? "" : `/api/sessions/${known?.id}/messages?before=${last + 1}`;
  }

  /** Of the session that is shown. */
  #read() {
    const id = this.answers.known?.id || "";
    if (!this.#path()) return Promise.resolve(true);
    if (this.#reading?.id === id) return this.#reading.promise;
    const reading = { id, promise: this.#readAll(id) };
    const done = () => {
      if (this.#reading === reading) this.#reading = null;
    };
    reading.promise.then(done, done);
    return (this.#reading = reading).promise;
  }

  /** @param {string} id */
  async #readAll(id) {
    let attempts = 0;
    const mayWait = () => !this.#all && !this.#one;
    for (let wait = FIRST_MS; ; wait = NEXT_MS) {
      if (mayWait()) await this.#pause(wait);
      while (mayWait() && this.store.state.live.size) await this.#pause(wait); // a reply has the page to itself
      const path = this.#path();
      const { known } = this.answers;
      if (known?.id !== id) return false;
      if (!path) return true;
      this.#one = false;
      try {
        const { messages } = await this.answers.get(path);
        attempts = this.#fill(known, messages) ? 0 : attempts + 1;
        if (attempts === MAX_ATTEMPTS) return false;
      } catch (error) {
        attempts += 1;
        if (!(error instanceof ApiError) || error.status !== 409 || attempts === MAX_ATTEMPTS) throw error;
        await this.page.refresh(); // so many changes ago that the server has forgotten it
      }
    }
  }

  /** @param {number} ms */
  #pause(ms) {
    return new Promise((go) => {
      this.#wake = () => go(undefined);
      setTimeout(go, ms);
    });
  }

  /**
   * In place: what was not changed since is on screen, too. Answers how many there were.
   * @param {Session} known as it was when they were asked for @param {Message[]} messages
   */
  #fill(known, messages) {
    const byId = new Map(messages.map((message) => [message.id, message]));
    const filled = known.messages.filter(({ id, far }) => far && byId.has(id));
    for (const message of filled) {
      Object.assign(message, byId.get(message.id));
      delete message.far;
    }
    this.store.touch("texts");
    return filled.length;
  }
}
