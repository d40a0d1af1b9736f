// The reader's choice between light and dark; without one the system's counts.
const root = document.documentElement;
const toggle = document.getElementById("theme");
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
toggle.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
  root.dataset.theme = dark ? "light" : "dark";
  draw();
});
