// @ts-check
/** DOMPurify's small build, which is a script that leaves itself at the window. Loaded when it is needed. */

/** Untrusted html is parsed here: no script runs in this document and nothing is loaded by it. */
const inert = document.implementation.createHTMLDocument("");

/**
 * A function that makes of html the elements that `rules` allow. Each has a DOMPurify of its own, which
 * reads its rules once and not with every piece of a reply, and cleans in place: else it would parse into a
 * whole new document.
 * @param {{ALLOWED_TAGS: string[], ALLOWED_ATTR: string[]} & Record<string, any>} rules
 * @returns {Promise<(html: string) => DocumentFragment>}
 */
export async function sanitizer(rules) {
  await import("../vendor/dompurify/purify.min.js");
  const purify = /** @type {any} */ (globalThis).DOMPurify(window);
  purify.setConfig({
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ...rules,
    ALLOWED_TAGS: ["div", ...rules.ALLOWED_TAGS], // the root
    IN_PLACE: true,
  });
  const range = inert.createRange();
  range.selectNodeContents(inert.body);
  return (html) => {
    const root = inert.createElement("div");
    root.append(range.createContextualFragment(html));
    purify.sanitize(root);
    const clean = document.createDocumentFragment();
    clean.append(...root.childNodes);
    return clean;
  };
}
