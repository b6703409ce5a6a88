// Cockpit has a theme of its own, which may be another than the browser's: whoever is logged in chooses it in Cockpit's menu.
"use strict";
(() => {
  const show = (style) => { document.documentElement.style.colorScheme = style === "light" || style === "dark" ? style : ""; };
  show(localStorage.getItem("shell:style"));
  // It is chosen in the window around this one.
  addEventListener("storage", ({ key, newValue }) => { if (key === "shell:style") show(newValue); });
})();
