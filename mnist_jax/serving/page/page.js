// Draws strokes, sends them as PNG, and shows what the runs predict. All preprocessing
// is the server's: the same code that reads image files.
"use strict";

const PEN = 18; // pixels of the canvas's 280
const SENT = 140; // pixels a side of what is predicted: a quarter of the time of 280
const STEP = 8; // pixels that an arrow key moves the pen
const MOST_BARS = 12;
const MOST_BYTES = 32 * 2 ** 20; // as bodies.py has it

const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const context = canvas.getContext("2d");
const small = document.createElement("canvas");
const pen = { x: canvas.width / 2, y: canvas.height / 2, down: false, shown: false };

let strokes = []; // each [[x, y], ..]
let picture = null; // {file, bitmap} of an opened image
let panels = []; // a run's elements
let sending = false;
let again = false; // the drawing changed while a request was under way

// ---- the drawing

function drawStroke(points) {
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[0]);
  if (points.length === 1) context.lineTo(...points[0]);
  // Through the middles, with the points as controls: smooth at any speed.
  for (let i = 1; i < points.length; i++) {
    const [x, y] = points[i - 1];
    const [u, v] = points[i];
    context.quadraticCurveTo(x, y, (x + u) / 2, (y + v) / 2);
  }
  context.lineTo(...points[points.length - 1]);
  context.stroke();
}

function redraw(withPen = pen.shown) {
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = "#000";
  if (picture) {
    const { bitmap } = picture;
    const scale = canvas.width / Math.max(bitmap.width, bitmap.height);
    const [w, h] = [bitmap.width * scale, bitmap.height * scale];
    context.drawImage(bitmap, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  }
  strokes.forEach(drawStroke);
  if (withPen) {
    context.lineWidth = 2;
    context.strokeStyle = pen.down ? "#0072b2" : "#999";
    context.beginPath();
    context.arc(pen.x, pen.y, PEN / 2, 0, 2 * Math.PI);
    context.stroke();
  }
}

function changed() {
  redraw();
  const isBlank = !strokes.length && !picture;
  $("undo").disabled = !strokes.length;
  $("clear").disabled = isBlank;
  $("keep").disabled = isBlank || Boolean(picture);
  $("kept").textContent = "";
  if (isBlank) showNothing("");
  else predict();
}

function placeOf(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

function begin(point) {
  picture = null;
  strokes.push([point]);
  changed();
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || canvas.dataset.pointer) return; // one finger draws
  canvas.setPointerCapture(event.pointerId);
  pen.shown = pen.down = false;
  canvas.dataset.pointer = event.pointerId;
  begin(placeOf(event));
});

canvas.addEventListener("pointermove", (event) => {
  if (canvas.dataset.pointer !== String(event.pointerId)) return;
  const events = event.getCoalescedEvents?.() ?? [];
  const points = (events.length ? events : [event]).map(placeOf);
  strokes[strokes.length - 1].push(...points);
  changed();
});

for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    if (canvas.dataset.pointer !== String(event.pointerId)) return;
    delete canvas.dataset.pointer;
    announce();
  });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener("keydown", (event) => {
  const arrow = ARROWS[event.key];
  if (arrow) {
    pen.shown = true;
    pen.x = Math.min(Math.max(pen.x + STEP * arrow[0], 0), canvas.width);
    pen.y = Math.min(Math.max(pen.y + STEP * arrow[1], 0), canvas.height);
    if (pen.down) {
      strokes[strokes.length - 1].push([pen.x, pen.y]);
      changed();
    } else redraw();
  } else if (event.key === " ") {
    pen.shown = true;
    pen.down = !pen.down;
    if (pen.down) begin([pen.x, pen.y]);
    else {
      redraw();
      announce();
    }
  } else return;
  event.preventDefault();
});

canvas.addEventListener("blur", () => {
  pen.shown = pen.down = false;
  redraw();
});

function undo() {
  strokes.pop();
  pen.down = false;
  changed();
}

function clear() {
  strokes = [];
  picture = null;
  pen.down = false;
  changed();
}

$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clear);
document.addEventListener("keydown", (event) => {
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
  else if (event.key === "Delete") clear();
  else return;
  event.preventDefault();
});

$("file").addEventListener("change", async () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (!file) return;
  try {
    picture = { file, bitmap: await createImageBitmap(file) };
    strokes = [];
    changed();
  } catch {
    showNothing(`${file.name} cannot be read as an image.`);
  }
});

// ---- the server

function toBlob(side) {
  redraw(false);
  small.width = small.height = side;
  small.getContext("2d").drawImage(canvas, 0, 0, side, side);
  const blob = new Promise((resolve) => small.toBlob(resolve, "image/png"));
  if (pen.shown) redraw();
  return blob;
}

async function post(path, body) {
  if (body.size > MOST_BYTES) throw new Error("The picture is larger than 32 MiB.");
  const type = body.type.startsWith("image/") ? body.type : "image/png";
  const response = await fetch(path, {
    method: "POST", body, headers: { "Content-Type": type },
  });
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

// One request at a time, and always the latest drawing: no queue can build up.
async function predict() {
  again = true;
  if (sending) return;
  sending = true;
  while (again) {
    again = false;
    if (!strokes.length && !picture) break;
    try {
      const body = picture ? picture.file : await toBlob(SENT);
      const found = await post("predict", body);
      const maps = $("saliency").checked && found.image && await post("saliency", body);
      if (!strokes.length && !picture) break; // cleared meanwhile
      if (found.image) show(found, maps || []);
      else showNothing("No strokes found.");
    } catch (error) {
      showNothing(error instanceof TypeError ? "The server does not answer." : error.message);
    }
  }
  sending = false;
  if (!canvas.dataset.pointer && !pen.down) announce();
}

$("saliency").addEventListener("change", () => {
  for (const panel of panels) panel.saliency.figure.hidden = !$("saliency").checked;
  if (strokes.length || picture) predict();
});

async function keep(name) {
  const body = await toBlob(canvas.width);
  try {
    const { file } = await post(`drawings?class=${encodeURIComponent(name)}`, body);
    clear();
    $("kept").textContent = `kept as ${file}`;
    canvas.focus();
  } catch (error) {
    $("kept").textContent = error.message;
  }
}

// ---- what is shown

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}

function makeFigure(caption, label) {
  const figure = element("figure");
  const map = element("canvas");
  map.setAttribute("role", "img");
  map.setAttribute("aria-label", label);
  figure.append(map, element("figcaption", "", caption));
  return { figure, map };
}

function makePanel(run) {
  const article = element("article");
  const score = run.test_accuracy === null ? "not trained to its end"
    : `${(100 * run.test_accuracy).toFixed(2)}% of the test set correct`;
  article.append(element("h2", "", `${run.model} on ${run.dataset}`));
  article.append(element("p", "hint", `${run.name}: ${score}`));
  const prediction = article.appendChild(element("p", "prediction"));
  const bars = article.appendChild(element("ul", "bars"));
  const rows = [];
  for (let i = 0; i < Math.min(run.class_names.length, MOST_BARS); i++) {
    const row = bars.appendChild(element("li"));
    const name = row.appendChild(element("span", "name"));
    const bar = row.appendChild(element("span", "track")).appendChild(element("div", "bar"));
    const share = row.appendChild(element("span", "share"));
    rows.push({ row, name, bar, share });
  }
  const maps = article.appendChild(element("div", "maps"));
  const saliency = makeFigure("which pixels count", "Saliency map");
  saliency.figure.hidden = true;
  maps.append(saliency.figure);
  let reading = null;
  if (run.reads) {
    const unit = { rows: "row", columns: "column" }[run.reads] || "pixel";
    const caption = `the probability of each class (${run.class_names[0]} to ` +
      `${run.class_names[run.class_names.length - 1]}, left to right) as its ${unit}s are read, ` +
      "top to bottom";
    reading = makeFigure(caption, `Probabilities as ${unit}s are read`);
    maps.prepend(reading.figure);
  }
  return { article, run, prediction, rows, saliency, reading };
}

// Shares as shades of one hue, black for none.
function paint(map, values, [r, g, b]) {
  const [height, width] = [values.length, values[0].length];
  [map.width, map.height] = [width, height];
  const image = new ImageData(width, height);
  values.flat().forEach((value, i) => {
    image.data.set([r * value, g * value, b * value, 255], 4 * i);
  });
  map.getContext("2d").putImageData(image, 0, 0);
}

function wipe(map) {
  map.getContext("2d").clearRect(0, 0, map.width, map.height);
}

function show(found, maps) {
  $("problem").textContent = "";
  paint($("seen"), found.image.map((row) => row.map((x) => x / 255)), [255, 255, 255]);
  panels.forEach((panel, i) => {
    const { probabilities: [shares], classes: [name], reading } = found.runs[i];
    const best = shares.indexOf(Math.max(...shares));
    panel.prediction.textContent = `${name} (${percent(shares[best])})`;
    let order = shares.map((_, k) => k);
    if (order.length > panel.rows.length) {
      order.sort((a, b) => shares[b] - shares[a]);
      order = order.slice(0, panel.rows.length);
    }
    order.forEach((k, row) => fillRow(panel.rows[row], panel.run.class_names[k], shares[k], k === best));
    if (panel.reading) paint(panel.reading.map, reading, [255, 220, 120]);
    if (maps[i]) paint(panel.saliency.map, maps[i].saliency, [120, 200, 255]);
  });
}

function fillRow({ row, name, bar, share }, text, value, isBest) {
  row.className = isBest ? "best" : "";
  name.textContent = text;
  bar.style.width = percent(value);
  share.textContent = percent(value);
}

function showNothing(problem) {
  $("problem").textContent = problem;
  wipe($("seen"));
  for (const panel of panels) {
    panel.prediction.textContent = "";
    panel.rows.forEach((row, k) => {
      const names = panel.run.class_names;
      fillRow(row, names.length > panel.rows.length ? "" : names[k], 0, false);
      row.share.textContent = "";
    });
    wipe(panel.saliency.map);
    if (panel.reading) wipe(panel.reading.map);
  }
}

// For screen readers, when a stroke has ended: each change would be too much to hear.
function announce() {
  const said = panels.filter((panel) => panel.prediction.textContent)
    .map((panel) => `${panel.run.model}: ${panel.prediction.textContent}`);
  $("live").textContent = said.join("; ") || $("problem").textContent;
}

async function start() {
  const runs = await (await fetch("runs")).json();
  panels = runs.map(makePanel);
  $("runs").append(...panels.map((panel) => panel.article));
  const names = runs[0].class_names;
  $("classes").textContent = names.length > 20 ? `one of ${names.length} classes`
    : `one of ${names.join(", ")}`;
  for (const name of names) {
    const button = $("labels").appendChild(element("button", "", name));
    button.type = "button";
    button.setAttribute("aria-label", `Keep as ${name}`);
    button.addEventListener("click", () => keep(name));
  }
  changed();
}

start();
