"use strict";
(() => {
  const canvas = document.getElementById("timeline"), under = document.getElementById("under");
  const data = JSON.parse(canvas.dataset.timeline);
  const legend = document.getElementById("legend");
  const row = 20, gap = 5, tall = 44, head = 22, end = Math.max(data.end, 1);
  const hue = (at) => (at * 137.5 + 205) % 360;
  const dark = () => {
    const said = document.documentElement.dataset.theme;
    return said ? said === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const colour = (at) => data.waits[at] ? (dark() ? "#2b313b" : "#e3e6eb") : `hsl(${hue(at)} 55% ${dark() ? 58 : 48}%)`;
  let from = 0, to = end;
  const words = (us) => us >= 1e6 ? `${(us / 1e6).toPrecision(4)} s` : us >= 1e3 ? `${(us / 1e3).toPrecision(3)} ms` : `${Math.round(us)} µs`;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const place = (width) => (us) => (us - from) / (to - from) * width;

  const name = (pen, text, y) => {  // on a ground of its own: what is below it may have any colour
    pen.fillStyle = style("--ground");
    pen.globalAlpha = 0.85; pen.fillRect(2, y - 11, pen.measureText(text).width + 6, 15); pen.globalAlpha = 1;
    pen.fillStyle = style("--text");
    pen.fillText(text, 5, y);
  };
  const axis = (pen, width, height, x) => {
    const rough = (to - from) / Math.max(width / 110, 2), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
    pen.fillStyle = style("--quiet");
    pen.strokeStyle = style("--line");
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      pen.fillText(words(at), x(at) + 3, 14);
      pen.beginPath(); pen.moveTo(x(at), 0); pen.lineTo(x(at), height); pen.stroke();
    }
  };
  const draw = () => {
    const width = canvas.clientWidth, scale = devicePixelRatio || 1;
    const height = head + data.threads.length * (row + gap) + data.queues.length * (tall + gap) + gap;
    canvas.width = width * scale; canvas.height = height * scale; canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d"), x = place(width);
    pen.scale(scale, scale);
    pen.font = "11px system-ui, sans-serif";
    axis(pen, width, height, x);
    data.threads.forEach((thread, number) => {
      const y = head + number * (row + gap), spans = thread.spans;
      for (let at = 0; at < spans.length; at += 3) {
        const left = x(spans[at]), right = x(spans[at] + spans[at + 1]);
        if (right < 0 || left > width) continue;
        pen.fillStyle = colour(spans[at + 2]);
        pen.fillRect(left, y, Math.max(right - left, 0.6), row);
      }
      name(pen, thread.name, y + 14);
    });
    data.queues.forEach((queue, number) => queued(pen, queue, head + data.threads.length * (row + gap) + number * (tall + gap), x));
  };
  const queued = (pen, queue, y, x) => {
    const points = queue.points;
    let most = 1;
    for (let at = 1; at < points.length; at += 2) most = Math.max(most, points[at]);
    pen.strokeStyle = style("--accent");
    pen.beginPath();
    for (let at = 0; at < points.length; at += 2) pen.lineTo(x(points[at] * 1e6), y + tall - points[at + 1] / most * (tall - 14));
    pen.stroke();
    name(pen, `${queue.name}: up to ${Math.round(most)}`, y + 11);
  };
  const see = (first, last) => {
    const span = Math.min(Math.max(last - first, 20), end * 1.02);
    from = Math.min(Math.max(first, -end * 0.01), end * 1.01 - span);
    to = from + span;
    draw();
  };
  const zoom = (factor, at = 0.5) => {
    const middle = from + (to - from) * at, span = (to - from) * factor;
    see(middle - span * at, middle + span * (1 - at));
  };
  const move = (part) => see(from + (to - from) * part, to + (to - from) * part);
  const found = (event) => {
    const box = canvas.getBoundingClientRect();
    const number = Math.floor((event.clientY - box.top - head) / (row + gap));
    const us = from + (event.clientX - box.left) / box.width * (to - from);
    const thread = data.threads[number];
    if (!thread) return `at ${words(Math.max(us, 0))}`;
    const spans = thread.spans;
    for (let at = 0; at < spans.length; at += 3) {
      if (us >= spans[at] && us <= spans[at] + spans[at + 1]) return `${thread.name}: ${data.names[spans[at + 2]]}, ${words(spans[at + 1])}, at ${words(spans[at])}`;
    }
    return `${thread.name}: nothing, at ${words(Math.max(us, 0))}`;
  };
  let grip = null;
  canvas.addEventListener("pointerdown", (event) => { grip = [event.clientX, from, to]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { grip = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (grip) {
      const by = (event.clientX - grip[0]) / canvas.clientWidth * (grip[2] - grip[1]);
      see(grip[1] - by, grip[2] - by);
    }
    under.textContent = found(event);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width);
  }, { passive: false });
  const keys = { "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1.4), "0": () => see(0, end), ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2) };
  canvas.addEventListener("keydown", (event) => {
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  data.names.forEach((name, at) => {
    if (data.waits[at]) return;
    const one = document.createElement("span"), mark = document.createElement("i");
    mark.style.background = colour(at);
    one.append(mark, name);
    legend.append(one);
  });
  addEventListener("resize", draw);
  new MutationObserver(draw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  see(0, end);
  canvas.dataset.drawn = "yes";
})();
