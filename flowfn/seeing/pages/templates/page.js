"use strict";
(() => {
  const root = document.documentElement, notice = document.getElementById("notice");
  let hiding = 0;
  const say = (text) => {
    notice.textContent = text;
    clearTimeout(hiding);
    hiding = setTimeout(() => { notice.textContent = ""; }, 6000);
  };
  const turn = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  };
  const copied = (text) => {  // what works in pages from disk and in frames too
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    let done = false;
    try { done = document.execCommand("copy"); } catch { done = false; }
    area.remove();
    return done;
  };
  const copy = (button) => {
    const text = button.dataset.copy, done = copied(text);
    button.focus();
    say(done ? `copied: ${text}` : text);
  };
  document.getElementById("theme").addEventListener("click", turn);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
    if (event.key === "t") turn();
    if (event.key === "Escape") notice.textContent = "";
  });
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
})();
