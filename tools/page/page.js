// Reads a captcha in the browser. From top to bottom: the network, its answers, pictures, the page.

import * as ort from "./ort.wasm.bundle.min.mjs";

const { alphabet, captchas } = await (await fetch("page.json")).json(); // `make demo` wrote it
const NAMES = ["-", ...alphabet]; // of the answers for a column
const BLANK = 0; // CTC's answer for "nothing new here"
const [HEIGHT, NARROWEST, WIDEST] = [64, 64, 320]; // pixels, as the network wants a picture
const MOST = 25_000_000; // bytes of a file
const SURE = 0.7; // below, the page warns
const $ = (id) => document.getElementById(id);

// The network

ort.env.wasm.numThreads = 1; // a captcha is so little work that sharing it costs more
const network = ort.InferenceSession.create("ctc.onnx");

// Returns one array for each column of 8 pixels: the probabilities of its answers.
async function columnsOf(rgb) {
  const pictures = new ort.Tensor("uint8", rgb, [1, HEIGHT, rgb.length / HEIGHT / 3, 3]);
  const { probabilities } = await (await network).run({ pictures }, ["probabilities"]);
  const [, steps, classes] = probabilities.dims;
  const column = (_, t) => probabilities.data.slice(t * classes, (t + 1) * classes);
  return Array.from({ length: steps }, column);
}

// From answers to a text

// Merges equal neighbours of the likeliest answers, then drops the blanks: greedy decoding, lesson 3.
function spell(columns) {
  const path = columns.map((column) => column.indexOf(Math.max(...column)));
  const label = path.filter((answer, t) => answer !== BLANK && answer !== path[t - 1]);
  const text = label.map((answer) => NAMES[answer]).join("");
  return { path, text, chance: chanceOf(label, columns) };
}

// Returns the probability of a label, the sum over all its alignments: the lattice of lesson 3.
function chanceOf(label, columns) {
  const states = [BLANK, ...label.flatMap((answer) => [answer, BLANK])];
  let sums = states.map((answer, s) => (s < 2 ? columns[0][answer] : 0));
  for (const column of columns.slice(1)) {
    sums = states.map((answer, s) => {
      const skip = s > 1 && answer !== BLANK && answer !== states[s - 2]; // past a blank
      return ((skip ? sums[s - 2] : 0) + (sums[s - 1] ?? 0) + sums[s]) * column[answer];
    });
  }
  return sums.at(-1) + (sums.at(-2) ?? 0);
}

// Pictures

// Opens a file as a picture; the error says what is wrong with it.
async function toBitmap(file) {
  const expected = "A PNG, JPEG, GIF or WebP of at most 25 MB is expected.";
  if (file.size > MOST) throw new Error(`${file.name} has ${Math.round(file.size / 1e6)} MB. ${expected}`);
  return createImageBitmap(file).catch(() => {
    throw new Error(`${file.name} is not a picture that a browser can open. ${expected}`);
  });
}

// Draws a picture as the network wants it, on white and 64 high; returns its RGB bytes. The width
// follows as in captcha_reader/reading.py.
function draw(picture) {
  const { width: w, height: h } = picture;
  const wanted = 8 * Math.floor((16 * w + h) / (2 * h));
  const width = Math.min(WIDEST, Math.max(NARROWEST, wanted));
  $("picture").width = width;
  $("picture").style.aspectRatio = width / HEIGHT;
  const canvas = $("picture").getContext("2d", { willReadFrequently: true });
  canvas.fillStyle = "white";
  canvas.fillRect(0, 0, width, HEIGHT);
  canvas.imageSmoothingQuality = "high";
  canvas.drawImage(picture, 0, 0, width, HEIGHT);
  const rgba = canvas.getImageData(0, 0, width, HEIGHT).data;
  return new Uint8Array(rgba.filter((_, i) => i % 4 !== 3));
}

// The page

let newest = 0; // a large file may be ready only after a small one that came later

// Reads the promise of a picture, an ImageBitmap; `truth` is what it says, where that is known.
async function read(source, name, truth) {
  const turn = ++newest;
  for (const button of $("captchas").children) button.ariaCurrent = button.title === truth;
  try {
    const picture = await source;
    await network;
    if (turn !== newest) return;
    const start = performance.now();
    const columns = await columnsOf(draw(picture));
    const { path, text, chance } = spell(columns);
    const milliseconds = Math.round(performance.now() - start);
    const percent = (Math.floor(1000 * chance) / 10).toFixed(1); // rounded down: it is never 100 % sure
    const right = text === truth;
    const strange = text ? chance < SURE && "Not very sure" : "Nothing found";
    say({
      text: text || "(nothing)",
      says: `${percent} % sure, read in ${milliseconds} ms`,
      verdict: truth && `${right ? "✓ Right" : "✗ Wrong"}: it says ${truth}`,
      warning: strange && `${strange}: this may be another style than the network has learned.`,
      kind: truth && (right ? "right" : "wrong"),
    });
    show(columns, path, name);
  } catch (error) {
    if (turn === newest) complain(error.message);
  }
}

function say({ text = "", says = "", verdict, warning, kind }) {
  $("answer").className = kind || "";
  $("text").textContent = text;
  $("says").textContent = says;
  $("verdict").textContent = verdict || "";
  $("warning").textContent = warning || "";
}

function complain(message) {
  say({ says: message, kind: "error" });
  $("figure").hidden = true;
}

function show(columns, path, name) {
  const spelled = path.map((answer) => (answer === BLANK ? "blank" : NAMES[answer]));
  const sure = path.map((answer, t) => `${spelled[t]} ${Math.floor(100 * columns[t][answer])} %`);
  $("picture").ariaLabel = `${name}, as the network sees it`;
  $("path").ariaLabel = `The answers from left to right: ${spelled.join(", ")}`;
  $("map").ariaLabel = `How sure they are: ${sure.join(", ")}`;
  const tag = (strong, textContent) =>
    Object.assign(document.createElement(strong ? "b" : "span"), { textContent });
  $("path").replaceChildren(...path.map((answer) => tag(answer !== BLANK, NAMES[answer])));
  $("names").replaceChildren(...NAMES.map((name, answer) => tag(path.includes(answer), name)));
  $("figure").style.setProperty("--columns", columns.length);
  $("figure").style.setProperty("--answers", NAMES.length);
  $("map").width = columns.length;
  $("map").height = NAMES.length;
  const map = $("map").getContext("2d");
  const cells = map.createImageData(columns.length, NAMES.length); // a pixel each; style.css enlarges
  columns.forEach((column, t) =>
    column.forEach((chance, answer) =>
      cells.data.set([66, 133, 244, 255 * chance], 4 * (answer * columns.length + t))));
  map.putImageData(cells, 0, 0);
  $("figure").hidden = false;
}

function readFile(file, otherwise) {
  if (file) read(toBitmap(file), file.name);
  else complain(otherwise);
}

$("choose").onclick = () => $("file").click();
$("file").onchange = () => {
  if ($("file").files.length) readFile($("file").files[0]);
  $("file").value = ""; // so that the same file can be chosen again
};
document.onpaste = (event) =>
  readFile(event.clipboardData.files[0], "There was no picture to paste. Copy a picture, or a file of one.");
document.ondragover = (event) => {
  event.preventDefault(); // otherwise the browser leaves the page to open the file
  document.body.className = "dragging";
};
document.ondragleave = (event) => {
  if (!event.relatedTarget) document.body.className = ""; // out of the window
};
document.ondrop = (event) => {
  event.preventDefault();
  document.body.className = "";
  readFile(event.dataTransfer.files[0], "There was no file in what you dropped. Drop a file of a picture.");
};

// The captchas that come with the page, and the first of them read.
try {
  const buttons = captchas.map(({ file, truth }) => {
    const button = document.createElement("button");
    const picture = Object.assign(new Image(128, 64), { src: file, alt: `Captcha ${truth}` });
    button.title = truth;
    button.append(picture);
    button.onclick = () => read(picture.decode().then(() => createImageBitmap(picture)), truth, truth);
    return button;
  });
  $("captchas").append(...buttons);
  let next = 0;
  $("draw").onclick = () => buttons[next++ % buttons.length].click();
  $("draw").click();
  await network;
} catch (error) {
  complain(`The page can't get what it needs: ${error.message}`);
}
// Only now, so that nothing is fetched twice.
await navigator.serviceWorker?.register("worker.js");
await navigator.serviceWorker?.ready;
$("offline").hidden = !navigator.serviceWorker;
