// @ts-check
/**
 * What can be done to a message that is there, such as to correct it in place or to take it out; and undoing.
 * @import { Change, Message } from "../types.js"
 * @import { Answers } from "./answers.js"
 * @import { Operation } from "./operations.js"
 */

/** @param {Operation} operation @param {Answers} answers */
export const corrections = (operation, { patch, post, put, remove }) => ({
  /** @param {Message} message @param {string} text */
  correct: (message, text) =>
    operation((session) =>
      patch(`/api/sessions/${session.id}/messages/${message.id}`, { revision: session.revision, text }),
    ),

  /** Whether it stays in the bots' memory. @param {Message} message @param {boolean} pinned */
  pin: (message, pinned) =>
    operation((session) =>
      patch(`/api/sessions/${session.id}/messages/${message.id}`, { revision: session.revision, pinned }),
    ),

  /** Whom it is for; null: all. @param {Message} message @param {string[] | null} audience */
  whisper: (message, audience) =>
    operation(({ id, revision }) =>
      patch(`/api/sessions/${id}/messages/${message.id}`, { revision, for: audience }),
    ),

  /** Name the branch that begins with a message; "" takes its name. @param {Message} message
   * @param {string} label */
  label: (message, label) =>
    operation((session) =>
      put(`/api/sessions/${session.id}/messages/${message.id}/label`, { revision: session.revision, label }),
    ),

  /**
   * Let a text stand for all up to a message in what bots are sent.
   * @param {string} until @param {string} text @param {string[] | null} [readers] these bots; null: all
   */
  summarize: (until, text, readers = null) =>
    operation(({ id, revision }) =>
      post(`/api/sessions/${id}/summaries`, { revision, until, text, for: readers }),
    ),

  /** Send them all of it again. @param {string} summary its id */
  dropSummary: (summary) =>
    operation(({ id, revision }) => remove(`/api/sessions/${id}/summaries/${summary}`, { revision })),

  /** Take a message out. Answers the id of this change, or "". @param {Message} message */
  async erase(message) {
    let undo = "";
    await operation(async (session) => {
      const body = await remove(`/api/sessions/${session.id}/messages/${message.id}`, {
        revision: session.revision,
      });
      undo = body.undo;
      return body;
    });
    return undo;
  },

  /**
   * Undo the latest change of the session, or the one of this id; or do again what was undone last. Answers
   * what it was, or null.
   * @param {"undo" | "redo"} way @param {string} [step]
   * @returns {Promise<Change | null>}
   */
  async retrace(way, step) {
    let what = null;
    await operation(async ({ id, revision }) => {
      const body = await post(`/api/sessions/${id}/${way}`, { revision, ...(step && { step }) });
      what = body.undone || body.done;
      return body;
    });
    return what;
  },
});
