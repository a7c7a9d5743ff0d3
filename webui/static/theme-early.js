// @ts-check
// Runs before the first paint (it is no module), so that a chosen theme never flashes the other one.
{
  let theme = /** @type {string | null} */ (null);
  try {
    theme = localStorage.getItem("parlor.theme");
  } catch {
    // No storage: the system's theme.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
