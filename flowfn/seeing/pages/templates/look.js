"use strict";
(() => {
  const look = document.getElementById("look"), ways = document.getElementById("ways"), table = look.querySelector("table");
  const made = new Map(), used = new Map();
  for (const one of look.querySelectorAll("article[id]")) {
    made.set(one.id, one.dataset.parts.split(" ").filter(Boolean));
    for (const part of made.get(one.id)) used.set(part, [...(used.get(part) || []), one.id]);
  }
  const reached = (id, by, all = new Set()) => {
    for (const next of by.get(id) || []) if (!all.has(next)) { all.add(next); reached(next, by, all); }
    return all;
  };
  let paths = [];
  const draw = () => {
    const ground = look.getBoundingClientRect();
    ways.style.width = `${table.scrollWidth}px`;
    ways.style.height = `${table.scrollHeight}px`;
    ways.replaceChildren();
    paths = [];
    for (const [id, parts] of made) {
      const whole = document.getElementById(id).getBoundingClientRect();
      for (const part of parts) {
        const from = document.getElementById(part).getBoundingClientRect();
        const x1 = from.left + from.width / 2 - ground.left + look.scrollLeft, y1 = from.bottom - ground.top;
        const x2 = whole.left + whole.width / 2 - ground.left + look.scrollLeft, y2 = whole.top - ground.top;
        const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
        const bend = Math.max((y2 - y1) / 2, 8);
        path.setAttribute("d", `M${x1},${y1} C${x1},${y1 + bend} ${x2},${y2 - bend} ${x2},${y2}`);
        path.dataset.ends = `${part} ${id}`;
        ways.append(path);
        paths.push(path);
      }
    }
  };
  const near = (article) => {
    const ids = new Set();
    if (article) for (const by of [made, used]) for (const one of reached(article.id, by)) ids.add(one);
    if (article) ids.add(article.id);
    for (const one of look.querySelectorAll("article.near")) one.classList.toggle("near", ids.has(one.id));
    for (const id of ids) document.getElementById(id).classList.add("near");
    for (const path of paths) path.classList.toggle("near", path.dataset.ends.split(" ").every((id) => ids.has(id)));
  };
  look.addEventListener("pointerover", (event) => near(event.target.closest("article")));
  look.addEventListener("pointerleave", () => near(document.activeElement.closest("article")));
  look.addEventListener("focusin", (event) => near(event.target.closest("article")));
  look.addEventListener("toggle", draw, true);
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("audio")) return;
    const rows = [...look.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("button.spot")]);
    const some = rows.filter((row) => row.length);
    const at = some.findIndex((row) => row.includes(document.activeElement));
    if (!some.length) return;
    event.preventDefault();
    if (at < 0) { some[0][0].focus(); return; }
    const row = some[Math.min(Math.max(at + step[0], 0), some.length - 1)];
    const place = some[at].indexOf(document.activeElement);
    const share = some[at].length > 1 ? place / (some[at].length - 1) : 0;
    const next = step[0] ? Math.round(share * (row.length - 1)) : Math.min(Math.max(place + step[1], 0), row.length - 1);
    row[next].focus();
    row[next].scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  new ResizeObserver(draw).observe(table);
  draw();
})();
