/* Light and dark: as the system has it, or as chosen; on paper always light. */
"use strict";
((NaoRay) => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const listeners = [];
  let chosen = null;
  try {
    chosen = localStorage.getItem("nao-ray-theme");
  } catch {
    // a browser may refuse a page from a file its storage: the choice then lasts as long as the page
  }

  let isPrinting = false;
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    listeners.forEach((listener) => listener());
  };
  const current = () => (isPrinting ? "light" : null) ?? chosen ?? (system.matches ? "dark" : "light");

  function toggle() {
    chosen = current() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("nao-ray-theme", chosen);
    } catch {
      // as above
    }
    apply(chosen);
  }

  const print = (is) => {
    isPrinting = is;
    apply(current());
  };
  system.addEventListener("change", () => apply(current()));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  document.documentElement.dataset.theme = current();
  NaoRay.theme = {toggle, current, onChange: (listener) => listeners.push(listener)};
})((window.NaoRay ??= {}));
