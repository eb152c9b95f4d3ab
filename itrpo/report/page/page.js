"use strict";
const { charts, data, config } = JSON.parse(document.getElementById("content").textContent);
const root = document.documentElement;

// --- the two switches; what the reader chose is kept where the browser lets a page keep something
const remember = (key, value) => { try { localStorage.setItem(`itrpo-report-${key}`, value); } catch {} };
const recall = (key) => { try { return localStorage.getItem(`itrpo-report-${key}`); } catch { return null; } };
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
if (["dark", "light"].includes(recall("theme"))) root.dataset.theme = recall("theme");
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  remember("theme", root.dataset.theme);
});
document.getElementById("protocol")?.addEventListener("change", (event) => {
  root.dataset.protocol = event.target.value;
  for (const table of document.querySelectorAll("table.sortable")) {
    const header = table.querySelector("th[aria-sort]");
    if (header) order(table, header, header.getAttribute("aria-sort"));
  }
});

// --- tables: each header is a button; numbers first from the largest, texts from A, and what has no value always last
const value = (cell) => {
  const text = cell.dataset[root.dataset.protocol] ?? cell.dataset.sort ?? cell.textContent.trim();
  if (text === "") return null;
  return Number.isNaN(Number(text)) ? text : Number(text);
};
function order(table, header, direction) {
  const body = table.tBodies[0], column = header.cellIndex, sign = direction === "ascending" ? 1 : -1;
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  const rows = [...body.rows].map((row) => [value(row.cells[column]), row]);
  rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
  body.append(...rows.map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
}
for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.rows[0].cells) {
    header.querySelector("button")?.addEventListener("click", () => {
      const numbers = [...table.tBodies[0].rows].some((row) => typeof value(row.cells[header.cellIndex]) === "number");
      const now = header.getAttribute("aria-sort") ?? (numbers ? "ascending" : "descending");
      order(table, header, now === "ascending" ? "descending" : "ascending");
    });
  }
}

// --- charts: drawn once they come near the window, all before printing; panels in as many columns as there is room for
const places = [...document.querySelectorAll(".chart")];
function wrapped(text, room) { // a title that is wider than its chart would shrink all of it
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1).length + word.length >= room && lines.at(-1)) lines.push(word);
    else lines.push(`${lines.pop()} ${word}`.trim());
  }
  return lines;
}
function fitted(name, width) {
  const { spec, panels, height } = charts[name];
  const legend = width < 900 ? { ...config.legend, columns: Math.max(1, Math.floor(width / 150)) } : config.legend;
  const full = { ...spec, config: { ...config, legend }, datasets: { [name]: data[name] } };
  if (!panels) return { ...full, width: Math.max(200, width - 8), autosize: { type: "fit", contains: "padding" } };
  const even = panels % 4 === 0; // rows without gaps
  const room = width < 560 || spec.columns === 1 ? 1 : width < 900 ? 2 : even && width > 1000 ? 4 : 3;
  const columns = even && room === 3 ? 2 : Math.min(panels, room);
  const beside = 34 + 22; // labels and gap
  const panel = { ...spec.spec, width: Math.max(140, Math.floor((width - 8) / columns) - beside), height: spec.spec.height ?? height };
  const title = full.title && { ...full.title, text: wrapped(full.title.text, width / 6.5) };
  const header = { ...config.header, labelLimit: Math.floor((width - 8) / columns) };
  return { ...full, config: { ...full.config, header }, columns, spec: panel, ...(title && { title }) };
}
async function draw(place) {
  const width = place.clientWidth;
  if (place.dataset.width === String(width)) return;
  place.dataset.width = String(width);
  await vegaEmbed(place, fitted(place.dataset.chart, width), { actions: false, renderer: "svg", tooltip: { theme: "custom" } });
  place.dataset.drawn = "yes";
}
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, { rootMargin: "600px" });
for (const place of places) near.observe(place);
window.drawAll = () => Promise.all(places.map(draw));
let waiting;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { for (const place of places) if (place.dataset.drawn) draw(place); }, 150);
});
// the rest is drawn while the page is idle, so that a print has every figure
(window.requestIdleCallback ?? setTimeout)(async () => { for (const place of places) await draw(place); });
