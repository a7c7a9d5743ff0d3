// @ts-check
/**
 * What a text of markdown says once its marks are gone, for other programs: read from the elements that it
 * became on the page. Paragraphs are an empty line apart, cells a tab, entries of a list have their bullet or
 * number, formulas are their source.
 */

const BLOCKS = new Set(["BLOCKQUOTE", "DIV", "H3", "HR", "LI", "OL", "P", "PRE", "TABLE", "UL"]);

/** @type {Record<string, (element: any) => string>} */
const SAID = {
  A: (link) => {
    const { href } = link;
    const text = inside(link);
    return text === href || `${text}/` === href || `mailto:${text}` === href ? text : `${text} (${href})`;
  },
  BR: () => "\n",
  HR: () => "* * *",
  OL: (list) => entries(list, (at) => `${(list.start || 1) + at}. `),
  PRE: ({ textContent }) => textContent.replace(/\n$/, ""),
  TABLE: ({ rows }) => [...rows].map((row) => [...row.cells].map((cell) => inside(cell)).join("\t")).join("\n"),
  UL: (list) => entries(list, () => "• "),
};

/** @param {Element} list @param {(at: number) => string} mark */
function entries(list, mark) {
  return [...list.children]
    .map((entry, at) => mark(at) + inside(entry, "\n").replaceAll("\n", `\n${" ".repeat(mark(at).length)}`))
    .join("\n");
}

/** @param {any} node */
function said(node) {
  if (!(node instanceof HTMLElement)) return node.textContent || "";
  if (node.matches(".code-head, .link-target")) return "";
  if (node.matches(".math")) return node.dataset.tex || node.textContent || "";
  if (node.matches(".plain")) return node.textContent || "";
  return SAID[node.tagName]?.(node) ?? inside(node);
}

/**
 * Blocks apart, and what stands between them as a line of its own.
 * @param {Element} element @param {string} [apart]
 */
function inside(element, apart = "\n\n") {
  const parts = [""];
  for (const node of element.childNodes) {
    const isBlock = node instanceof HTMLElement && BLOCKS.has(node.tagName);
    if (isBlock) parts.push(said(node), "");
    else parts[parts.length - 1] += said(node);
  }
  return parts.filter((part) => part.trim()).map((part) => part.replace(/^\n+|\s+$/g, "")).join(apart);
}

/** @param {Element} rendered the element that holds the text's blocks */
export const plainText = (rendered) => inside(rendered);
