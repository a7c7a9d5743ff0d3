// @ts-check
// Runs before the first paint (it is no module), so that a chosen theme never flashes the other one and a closed
// panel never the open one. The page's modules come after that paint, which would else wait behind fifty requests;
// a page that is loaded again has them already. What app.js begins with is asked for at the same time.
{
  const root = document.documentElement;
  try {
    const theme = localStorage.getItem("parlor.theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    for (const side of ["left", "right"])
      if (localStorage.getItem(`parlor.panel.${side}`) === "closed") root.dataset[side] = "closed";
  } catch {
    // No storage: the system's theme, and the panels as they are.
  }
  let loaded = false;
  const load = () => {
    const app = /** @type {HTMLTemplateElement | null} */ (document.getElementById("app"));
    if (!app || loaded) return;
    loaded = true;
    let session = location.hash.slice(1);
    try {
      session ||= localStorage.getItem("parlor.last") || "";
    } catch {
      // No storage: a new session.
    }
    const paths = ["/api/bots", "/api/settings", "/api/sessions", "/api/status"];
    if (session) paths.unshift(`/api/sessions/${session}`);
    const asked = new Map(paths.map((path) => [path, fetch(path, { cache: "no-store" })]));
    for (const answer of asked.values()) answer.catch(() => {}); // api.js tells
    Object.assign(window, { asked });
    document.body.append(document.importNode(app.content, true));
  };
  const [navigation] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
  document.addEventListener("DOMContentLoaded", () => {
    if (document.hidden || navigation?.type === "reload") load();
    else setTimeout(load, 250); // no paint is told
  });
  new PerformanceObserver(() => setTimeout(load)).observe({ type: "paint", buffered: true });
}
