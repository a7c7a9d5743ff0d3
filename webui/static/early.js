// @ts-check
// Runs before the first paint (it is no module), so that a chosen theme never flashes the other one and a
// closed panel never the open one. The page's modules come after that paint, which would else wait until they
// are read; a page that is loaded again has them already. What app.js begins with is asked for meanwhile.
{
  const root = document.documentElement;
  try {
    for (const name of ["theme", "textSize", "column"]) {
      const chosen = localStorage.getItem(`parlor.${name}`); // in overlays/appearance.js
      if (chosen) root.dataset[name] = chosen;
    }
    if (localStorage.getItem("parlor.panel.left") === "closed") root.dataset.left = "closed";
    if (localStorage.getItem("parlor.panel.right") !== "open") root.dataset.right = "closed";
  } catch {
    // No storage: the system's theme, and the panels as they are.
  }
  // A phone's bars around the page have its colour.
  const bars = /** @type {HTMLMetaElement} */ (document.querySelector("meta[name=theme-color]"));
  const colourBars = () => (bars.content = getComputedStyle(root).backgroundColor);
  colourBars();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colourBars);
  new MutationObserver(colourBars).observe(root, { attributeFilter: ["data-theme"] });
  const [navigation] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
  const again = navigation?.type === "reload";
  /** @type {Map<string, Promise<Response>>} */
  const asked = new Map();
  /**
   * @param {string} path
   * @param {(answer: Response) => Promise<Response>} [before] what comes before anybody reads the answer
   */
  const ask = (path, before = async (answer) => answer) => {
    const answer = fetch(path, { cache: "no-store" }).then(before);
    answer.catch(() => {}); // api.js tells
    asked.set(path, answer);
  };
  /** What app.js begins with, and the reply that is being written in its session. */
  const askAll = () => {
    let session = location.hash.match(/^#([0-9a-f]{16})$/)?.[1];
    try {
      session ||= localStorage.getItem("parlor.last") || "";
    } catch {
      // No storage: a new session.
    }
    Object.assign(window, { asked });
    if (session) ask(`/api/sessions/${session}?texts=near`);
    for (const name of ["bots", "settings", "status"]) ask(`/api/${name}`);
    // app.js has the list once the reply was asked for: else it would ask a second time.
    ask("/api/sessions", async (answer) => {
      const { sessions } = await answer.clone().json().catch(() => ({}));
      const reply = sessions?.find((one) => one.id === session)?.writing?.reply_id;
      if (reply && !document.hidden) ask(`/api/replies/${reply}/events?from=0`);
      return answer;
    });
  };
  let loaded = false;
  const load = () => {
    const app = /** @type {HTMLTemplateElement | null} */ (document.getElementById("app"));
    if (!app || loaded) return;
    loaded = true;
    if (!again) askAll();
    document.body.append(document.importNode(app.content, true));
  };
  if (again) askAll();
  document.addEventListener("DOMContentLoaded", () => {
    if (document.hidden || again) load();
    else setTimeout(load, 250); // no paint is told
  });
  new PerformanceObserver(() => setTimeout(load)).observe({ type: "paint", buffered: true });
}
