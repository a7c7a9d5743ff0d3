// @ts-check
/** DOMPurify's small build, which is a script that leaves itself at the window. */

import "./vendor/dompurify/purify.min.js";

/**
 * What is allowed of `html`, as elements.
 * @param {string} html
 * @param {{ALLOWED_TAGS: string[], ALLOWED_ATTR: string[]} & Record<string, any>} rules
 * @returns {DocumentFragment}
 */
export function sanitize(html, rules) {
  return /** @type {any} */ (globalThis).DOMPurify.sanitize(html, {
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ...rules,
    RETURN_DOM_FRAGMENT: true,
  });
}
