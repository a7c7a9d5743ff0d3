// @ts-check
/**
 * Operations on the session on screen, one after the other. Each carries the revision that it was based on;
 * a stale one is answered with 409 and the current session, which is taken over then.
 * @import { Session } from "../types.js"
 * @import { Store } from "./store.js"
 */

import { ApiError } from "../server/api.js";

/**
 * @param {Store} store
 * @param {(body: any) => void} adopt takes over what the server says about the session
 * @param {{error: (error: any) => void, conflict: () => void}} page
 */
export function createOperations(store, adopt, page) {
  /** @type {Promise<any>} */
  let queue = Promise.resolve();

  /**
   * Run one operation after those before it; `call` gets the session of that moment. Answers whether it
   * worked.
   * @param {(session: Session) => Promise<any>} call
   * @returns {Promise<boolean>}
   */
  return function operation(call) {
    const run = async () => {
      const before = store.state.session;
      if (!before) return false;
      try {
        const body = await call(before);
        if (body && store.state.session?.id === (body.session?.id ?? before.id)) adopt(body);
        return true;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        const here = error.session?.id === store.state.session?.id;
        if (error.status === 409 && error.session && here) {
          adopt({ session: error.session });
          if (error.code === "busy") page.error(error);
          else page.conflict();
        } else page.error(error);
        return false;
      }
    };
    const result = queue.then(run, run);
    queue = result.catch(() => {});
    return result;
  };
}

/** @typedef {ReturnType<typeof createOperations>} Operation */
