// The viewer: layers side by side on one grid, one window, one place, one zoom. Slices come as PNG when they are wanted.
import { call, element, say } from "/static/app.js";

const NAMES = { source: "source", derived: "derived", difference: "difference", uncertainty: "uncertainty" };
const AHEAD = 8;
const AT_ONCE = 6;
const KEPT = 400;

const viewer = document.getElementById("viewer");
const base = viewer.dataset.images;
const blinded = viewer.dataset.blinded;
const isJob = viewer.dataset.job !== undefined;
const field = (id) => document.getElementById(id);
const state = { slice: 0, centre: 0, width: 1, zoom: 1, x: 0, y: 0, blink: false, shown: [] };
let stack;
let panes = [];

// --- loading: what is looked at first, then what comes next; what scrolled by is never asked for

const images = new Map();
let wanted = [];
let running = 0;

function address(layer, slice) {
  const { centre, width } = stack[layer] ?? state;  // difference and uncertainty have a window of their own
  return `${base}${isJob ? `/${layer}` : ""}/${slice}.png?centre=${centre}&width=${width}`;
}

function pump() {
  while (running < AT_ONCE && wanted.length) {
    const url = wanted.shift();
    if (images.has(url)) continue;
    running += 1;
    const image = new Image();
    images.set(url, image);
    // Not decode(): that waits for frames, and they are what is late when a hand is fast.
    image.onload = () => { running -= 1; image.ready = true; if (!viewer.dataset.ready || panes.some((pane) => pane.url === url)) drawSoon(); pump(); };
    image.onerror = () => { running -= 1; images.delete(url); failed(url); pump(); };
    image.src = url;
    while (images.size > KEPT) images.delete(images.keys().next().value);
  }
}

let told = false;
async function failed(url) {
  if (told || !panes.some((pane) => pane.url === url)) return;
  told = true;
  try { await call("GET", url); } catch (problem) { field("viewer-alert").textContent = problem.message; }
}

function want() {
  const next = panes.map((pane) => (pane.url = address(pane.layer(), state.slice)));
  for (let step = 1; step <= AHEAD; step += 1) {
    for (const slice of [state.slice + step * state.way, state.slice - (step <= 2 ? step : 1e9) * state.way]) {
      if (slice >= 0 && slice < stack.slices) for (const pane of panes) next.push(address(pane.layer(), slice));
    }
  }
  wanted = next.filter((url) => !images.has(url));
  pump();
  draw();
}

// --- drawing

// What a pane draws: the slice looked at, or while that is on its way the nearest one that was passed and has come.
function nearest(pane) {
  const drawn = pane.of === undefined ? AHEAD : Math.abs(state.slice - pane.of);
  for (let step = 0; step === 0 || (step < AHEAD && step < drawn); step += 1) {
    const slice = state.slice - step * state.way;
    const image = images.get(address(pane.layer(), slice));
    if (image?.ready) return [image, slice];
  }
  return null;
}

let due = false;
function drawSoon() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => { due = false; draw(); });
}

function draw() {
  const ratio = devicePixelRatio || 1;
  for (const pane of panes) {
    const found = nearest(pane);
    if (found) { [pane.image, pane.of] = found; pane.caption(); }
    const { canvas, context } = pane;
    const [w, h] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    context.fillStyle = "#000";
    context.fillRect(0, 0, w, h);
    if (!pane.image) continue;
    const [wide, high] = size();
    const fit = Math.min(w / wide, h / high) * state.zoom;
    context.imageSmoothingEnabled = fit < 4;
    context.drawImage(pane.image, w / 2 + state.x * ratio - (wide * fit) / 2, h / 2 + state.y * ratio - (high * fit) / 2, wide * fit, high * fit);
  }
  viewer.dataset.ready = panes.length && panes.every((pane) => pane.image && pane.of === state.slice) ? String(state.slice) : "";
}

// The size of a slice in equal steps, whatever the spacing of rows and columns.
function size() {
  const aspect = (stack.row_spacing_mm || 1) / (stack.column_spacing_mm || 1);
  return [stack.columns, stack.rows * aspect];
}

function makePane(name, layer) {
  const figure = element("figure", undefined, "pane");
  const canvas = element("canvas");
  const caption = element("figcaption");
  const [title, right] = [element("b", name), element("span")];
  caption.append(title, right);
  figure.append(canvas, caption, element("span", "Research use only", "research"));
  canvas.setAttribute("role", "img");
  const pane = { canvas, figure, context: canvas.getContext("2d"), layer, url: "", image: null };
  pane.caption = () => {
    const now = layer();
    if (!blinded) title.textContent = NAMES[now] ?? now;
    const window_ = now === "difference" ? `±${round(stack.difference.width / 2)}` : now === "uncertainty" ? `0 to ${round(stack.uncertainty.width)}` : `C ${round(state.centre)} W ${round(state.width)}`;
    right.textContent = `${pane.of + 1} / ${stack.slices}   ${window_} ${stack.unit}`;
    canvas.setAttribute("aria-label", `${title.textContent}, slice ${pane.of + 1} of ${stack.slices}`);
  };
  listen(pane);
  return pane;
}

const round = (value) => (Math.abs(value) >= 10 ? Math.round(value) : Number(value.toPrecision(3)));

// --- moving

function go(slice) {
  const next = Math.min(Math.max(slice, 0), stack.slices - 1);
  if (next === state.slice && viewer.dataset.ready) return;
  state.way = next >= state.slice ? 1 : -1;
  state.slice = next;
  field("slice").value = next;
  field("place").textContent = `${next + 1} / ${stack.slices}`;
  want();
}

function zoom(factor) {
  state.zoom = Math.min(Math.max(state.zoom * factor, 0.25), 32);
  draw();
}

function fit() {
  Object.assign(state, { zoom: 1, x: 0, y: 0 });
  draw();
}

let later;
function setWindow(centre, width, name) {
  state.centre = Number(centre.toPrecision(6));
  state.width = Math.max(Number(width.toPrecision(6)), 1e-6);
  field("centre").value = round(state.centre);
  field("width").value = round(state.width);
  for (const button of field("presets").children) button.setAttribute("aria-pressed", String(button.dataset.name === name));
  clearTimeout(later);
  later = setTimeout(want, 40);
}

function blink() {
  if (!field("blink") || !stack.layers.includes("derived")) return;
  state.blink = !state.blink;
  field("blink").setAttribute("aria-pressed", String(state.blink));
  want();
}

function listen(pane) {
  let held = null;
  let rest = 0;
  pane.figure.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey) return zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    rest += event.deltaMode === 1 ? event.deltaY * 40 : event.deltaY;
    const steps = Math.trunc(rest / 40);
    if (steps) { rest -= steps * 40; go(state.slice + Math.sign(steps) * Math.min(Math.abs(steps), 3)); }
  }, { passive: false });
  pane.figure.addEventListener("pointerdown", (event) => {
    viewer.focus({ preventScroll: true });
    held = { x: event.clientX, y: event.clientY, centre: state.centre, width: state.width, slice: state.slice, px: state.x, py: state.y };
    pane.figure.setPointerCapture(event.pointerId);
  });
  pane.figure.addEventListener("pointermove", (event) => {
    if (!held) return;
    const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
    if (event.pointerType === "touch") go(held.slice + Math.round(dy / 12));
    else if (event.shiftKey || event.buttons & 6) { state.x = held.px + dx; state.y = held.py + dy; draw(); }
    else if (Math.hypot(dx, dy) > 3) setWindow(held.centre + (dy * held.width) / 400, held.width * 2 ** (dx / 200));
  });
  for (const kind of ["pointerup", "pointercancel"]) pane.figure.addEventListener(kind, () => { held = null; });
  pane.figure.addEventListener("contextmenu", (event) => event.preventDefault());
  pane.figure.addEventListener("dblclick", fit);
}

const KEYS = {
  ArrowDown: () => go(state.slice + 1), ArrowUp: () => go(state.slice - 1), ArrowRight: () => go(state.slice + 1), ArrowLeft: () => go(state.slice - 1),
  PageDown: () => go(state.slice + 10), PageUp: () => go(state.slice - 10), Home: () => go(0), End: () => go(stack.slices - 1),
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: fit, b: blink, B: blink,
};

viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, button, a")) return;
  const preset = stack.windows[Number(event.key) - 1];
  if (preset) setWindow(preset.centre, preset.width, preset.name);
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
});

// --- setting up

function choose(layers) {
  state.shown = layers;
  panes = blinded
    ? [["left", blinded === "left" ? "derived" : "source"], ["right", blinded === "left" ? "source" : "derived"]].map(([name, layer]) => makePane(name, () => layer))
    : layers.map((layer) => makePane(layer, () => (layer === "source" && state.blink ? "derived" : layer)));
  field("panes").replaceChildren(...panes.map((pane) => pane.figure));
  for (const button of field("layers").children) button.setAttribute("aria-pressed", String(layers.includes(button.dataset.layer)));
  want();
}

function layerButtons() {
  if (blinded || stack.layers.length < 2) return;
  for (const layer of stack.layers) {
    const button = element("button", NAMES[layer] ?? layer);
    button.type = "button";
    button.dataset.layer = layer;
    button.addEventListener("click", () => {
      const next = stack.layers.filter((other) => (other === layer) !== state.shown.includes(other));
      if (next.length) choose(next);
    });
    field("layers").append(button);
  }
}

async function start() {
  try {
    stack = await call("GET", base);
  } catch (problem) {
    field("viewer-alert").textContent = problem.message;
    return;
  }
  for (const preset of stack.windows) {
    const button = element("button", preset.name);
    button.type = "button";
    button.dataset.name = preset.name;
    button.addEventListener("click", () => setWindow(preset.centre, preset.width, preset.name));
    field("presets").append(button);
  }
  state.slice = Math.floor(stack.slices / 2);
  state.way = 1;
  field("slice").max = stack.slices - 1;
  layerButtons();
  const [first] = stack.windows;
  setWindow(first.centre, first.width, first.name);
  clearTimeout(later);
  go(state.slice);
  choose(stack.layers);
  viewer.focus({ preventScroll: true });
}

field("slice").addEventListener("input", (event) => go(Number(event.target.value)));
for (const id of ["centre", "width"]) {
  field(id).addEventListener("change", () => {
    const [centre, width] = [Number(field("centre").value), Number(field("width").value)];
    if (Number.isFinite(centre) && width > 0) setWindow(centre, width);
  });
}
field("zoom-in").addEventListener("click", () => zoom(1.25));
field("zoom-out").addEventListener("click", () => zoom(0.8));
field("zoom-fit").addEventListener("click", fit);
field("blink")?.addEventListener("click", blink);
addEventListener("resize", draw);

// --- figures beside the images

const SVG = "http://www.w3.org/2000/svg";
function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function spectrum(quality) {
  const curves = { source: quality.spectrum_source, derived: quality.spectrum_derived, difference: quality.spectrum_difference };
  const top = Math.max(...Object.values(curves).flat(), 1e-9);
  const svg = shape("svg", { class: "spectrum", viewBox: "0 0 400 180", role: "img", "aria-label": "Spectra of source, derived and what was removed" });
  svg.append(shape("line", { x1: 30, x2: 395, y1: 160, y2: 160 }), shape("line", { x1: 30, x2: 30, y1: 5, y2: 160 }));
  for (const f of [0, 0.1, 0.2, 0.3, 0.4, 0.5]) svg.append(shape("text", { x: 30 + f * 730, y: 175, "text-anchor": f === 0.5 ? "end" : "middle" }, String(f)));
  svg.append(shape("text", { x: 26, y: 14, "text-anchor": "end" }, String(round(top))));
  for (const [name, curve] of Object.entries(curves)) {
    const points = curve.map((value, i) => `${30 + quality.frequencies[i] * 730},${160 - (value / top) * 150}`).join(" ");
    svg.append(shape("polyline", { class: name, points }));
  }
  return svg;
}

async function figures() {
  const panel = field("quality");
  if (!panel || !stack?.layers.includes("derived")) return;
  try {
    const quality = await call("GET", panel.dataset.quality);
    const show = (value) => (value === null ? "not measured" : `${round(value)} ${stack.unit}`);
    const lines = [
      ["Noise before", show(quality.noise_before)], ["Noise after", show(quality.noise_after)],
      ["Bias", show(quality.bias)], ["Mean difference", show(quality.mean_difference)],
      ["Spread of the difference", show(quality.std_difference)], ["Largest difference", show(quality.largest_difference)],
    ];
    field("quality-figures").replaceChildren(...lines.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
    field("spectrum").replaceChildren(spectrum(quality));
    panel.hidden = false;
  } catch (problem) {
    say(problem.message, true);
  }
}

start().then(figures);
