// The page: how a reading is shown; files, a network of your own, a frame to crop with, a game.

import { hidesPixels, openNetwork, prepare, readPixels, runtime, toBitmap } from "./reading.js";

const [UNSURE, STRANGE] = [0.7, 0.3]; // below, the page says that it is unsure, and that the style may be another
const SHOWN = 0.1; // an answer that is so probable in some column has a row in the map
const USUAL = 4; // characters
const HIDDEN = "Your browser hides the pixels of pictures from pages, to protect you against tracking, so nothing" +
  " can be read here. Allow this page to use canvas data and reload it, or open it in another browser.";
const MISSING = "The network needs WebAssembly, which is turned off in your browser (on an iPhone, by Lockdown Mode):" +
  " turn it on for this page, or open the page in another browser.";
const $ = (id) => document.getElementById(id);

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// The network, and what `make demo` wrote about it

async function get(name) {
  const response = await fetch(name).catch((error) => ({ status: error.message }));
  if (!response.ok) throw new Error(`${name} can't be loaded (${response.status}). Try to reload the page.`);
  return response;
}

const isBlind = hidesPixels();

async function load({ files, bytes }) {
  if (isBlind) throw new Error(HIDDEN);
  if (!globalThis.WebAssembly) throw new Error(MISSING);
  const [model, code] = await Promise.all(files.map(async (name) => {
    const [parts, reader] = [[], (await get(name)).body.getReader()];
    for (let part; (part = (await reader.read()).value); parts.push(part))
      $("progress").value += part.length / bytes;
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  }));
  runtime.wasmBinary = code;
  return openNetwork(model, files[0]);
}

const { captchas, right, ...needed } = await (await get("page.json")).json();
$("hint").remove(); // it asks whether nothing moves
const ours = load(needed);
let network = ours;
ours.catch(() => 0).finally(() => $("loading").remove()); // `read` tells what went wrong

// A picture is read and shown

let shown; // the picture on the page, as `read` was called, and the part of it that was read
let newest = 0; // a large file may be ready only after a small one that came later

// Reads the promise of a picture, an ImageBitmap, or the part of it in a frame; `truth` is what it
// says, where that is known.
async function read(source, { name, truth, frame }) {
  const turn = ++newest;
  for (const button of document.querySelectorAll("#captchas button, #list button"))
    button.ariaCurrent = button.name === name;
  endFrame();
  try {
    const bitmap = await source;
    if (turn !== newest) return;
    if (isBlind) throw new Error(HIDDEN);
    const { pixels, part } = prepare(bitmap, frame);
    if (bitmap !== shown?.bitmap) shown?.bitmap.close(); // else a part of it is read, or it is read again
    shown = { bitmap, name, truth, frame, part };
    showPicture(pixels, name);
    const [reader, start] = [await network, performance.now()];
    if (turn !== newest) return; // another picture came while the network was loading
    const reading = await readPixels(reader, pixels);
    if (turn !== newest) return;
    say(reading, Math.round(performance.now() - start), frame ? undefined : truth, reader);
    showColumns(reading, reader.names);
    $("whole").hidden = !frame;
  } catch (error) {
    if (turn === newest) complain(error.message);
  }
}

function say({ text, confidence, isInverse }, milliseconds, truth, { alphabet }) {
  const sign = text === truth ? "✓ Right" : "✗ Wrong";
  const isSure = confidence >= UNSURE;
  const notes = [
    !text && "What usually helps: a frame around the characters alone, and a sharp, upright picture.",
    text && !isSure && "Not very sure: compare the text with the picture.",
    text && confidence < STRANGE && "This may be a style that the network has not learned.",
    isSure && text.length !== USUAL && network === ours && "The network has learned texts of one to six characters, most often four.",
    /[O0]/.test(text) && /O.*0|0.*O/.test(alphabet) && "O and 0 are easily confused.",
    text && isInverse && "It was read with light and dark swapped.",
  ];
  $("answer").className = truth === undefined ? "" : text === truth ? "right" : "wrong";
  $("text").textContent = text;
  $("says").textContent = text
    ? `${(Math.min(999, Math.floor(1000 * confidence)) / 10).toFixed(1)} % sure, read in ${milliseconds} ms` // never 100
    : "No characters found";
  $("verdict").textContent = truth === undefined ? "" : `${sign}: the captcha says ${truth}`;
  $("note").textContent = notes.filter(Boolean).join(" ");
}

function complain(message) {
  $("answer").className = "error";
  $("says").textContent = message;
  $("text").textContent = $("verdict").textContent = $("note").textContent = "";
  $("reading").classList.remove("read");
  $("answer").scrollIntoView({ block: "nearest" }); // on a phone, what was pressed may be far below
}

function showPicture(pixels, name) {
  $("reading").classList.remove("read");
  $("reading").style.setProperty("--shape", pixels.width / pixels.height);
  [$("picture").width, $("picture").height] = [pixels.width, pixels.height];
  $("picture").getContext("2d").putImageData(pixels, 0, 0);
  $("picture").ariaLabel = name;
}

// Writes the answers of the columns under the picture, and draws those that are worth a row as a map.
function showColumns({ columns, path }, names) {
  const spelled = path.map((answer) => (answer ? names[answer] : "blank"));
  const sure = path.map((answer, t) => `${spelled[t]} ${Math.floor(100 * columns[t][answer])} %`);
  const most = names.map((_, answer) => Math.max(...columns.map((column) => column[answer])));
  const place = (answer) => columns.findIndex((column) => column[answer] === most[answer]);
  const used = [...names.keys()].slice(1).filter((answer) => path.includes(answer) || most[answer] >= SHOWN);
  const rows = [...used.sort((a, b) => place(a) - place(b)), 0]; // from left to right, then the blank
  const tag = (isStrong, text) => make(isStrong ? "b" : "span", {}, text);
  $("path").ariaLabel = `The answers from left to right: ${spelled.join(", ")}`;
  $("map").ariaLabel = `How sure they are: ${sure.join(", ")}`;
  $("path").replaceChildren(...path.map((answer) => tag(answer, names[answer])));
  $("names").replaceChildren(...rows.map((answer) => tag(path.includes(answer), names[answer])));
  $("reading").style.setProperty("--columns", columns.length);
  $("reading").style.setProperty("--answers", rows.length);
  [$("map").width, $("map").height] = [columns.length, rows.length];
  const map = $("map").getContext("2d");
  const cells = map.createImageData(columns.length, rows.length); // a pixel each; style.css enlarges
  rows.forEach((answer, row) => columns.forEach((column, t) =>
    cells.data.set([66, 133, 244, 255 * column[answer]], 4 * (row * columns.length + t))));
  map.putImageData(cells, 0, 0);
  $("reading").classList.add("read");
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  [...$("path").children].forEach((element, t) => // from left to right, as one reads
    element.animate({ opacity: [0, 1] }, { duration: 200, delay: 25 * t, fill: "backwards" }));
  $("map").animate({ clipPath: ["inset(0 100% 0 0)", "inset(0)"] }, 25 * columns.length + 200);
}

// Files: chosen, dropped or pasted. One is read; of several there is a list.

function readFiles(files, otherwise) {
  if (!files.length) return complain(otherwise);
  $("samples").hidden = files.length > 1;
  $("list").hidden = !$("samples").hidden;
  if (files.length === 1) read(toBitmap(files[0]), files[0]);
  else readAll(files);
}

let listed; // the files of the list

async function readAll(files) {
  listed = files;
  const buttons = files.map((file) =>
    make("button", { name: file.name, onclick: () => read(toBitmap(file), file) },
      make("span", {}, file.name), make("b", {}, "…")));
  $("list").replaceChildren(...buttons.map((button) => make("li", {}, button)));
  buttons[0].click();
  for (const [i, file] of files.entries()) {
    if (!buttons[i].isConnected) return; // another list has come
    const answer = toBitmap(file).then(async (bitmap) => {
      const { text, confidence } = await readPixels(await network, prepare(bitmap).pixels);
      bitmap.close();
      return text ? `${text} ${Math.min(99, Math.floor(100 * confidence))} %` : "no characters";
    });
    buttons[i].lastChild.textContent = await answer.catch(() => "not read"); // a click says why
  }
}

const onChoice = (input, take) => ($(input).onchange = () => {
  if ($(input).files.length) take([...$(input).files]);
  $(input).value = ""; // so that the same file can be chosen again
});
$("choose").onclick = () => $("file").click();
onChoice("file", readFiles);
document.onpaste = (event) => event.target === $("typed") || readFiles([...event.clipboardData.files],
  "There was no picture to paste. Copy a picture or an image file.");
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
  readFiles([...event.dataTransfer.files], "There was no file in what you dropped. Drop image files.");
};

// A network of your own

$("other").onclick = () => (network === ours ? $("model").click() : take(ours));
onChoice("model", async ([file]) => {
  try {
    const own = await openNetwork(new Uint8Array(await file.arrayBuffer()), file.name);
    take(Promise.resolve(own), `${file.name} is in use now. It knows ${own.alphabet}`);
  } catch (error) {
    complain(error.message);
  }
});

function take(another, words = "To read with a network of your own,") {
  network = another;
  $("whose").textContent = words;
  $("other").textContent = network === ours ? "choose a file" : "Use ours again";
  for (const part of document.querySelectorAll(".ours")) part.hidden = network !== ours;
  if (!$("list").hidden) readAll(listed);
  else if (shown) read(shown.bitmap, shown);
}

// A frame over the picture. Its place and size are shares of the picture's.

let frame;
const within = (value, most = 1) => Math.min(most, Math.max(0, value));

function setFrame(left, top, width, height) {
  [width, height] = [within(width), within(height)];
  frame = { left: within(left, 1 - width), top: within(top, 1 - height), width, height };
  for (const [side, share] of Object.entries(frame)) $("frame").style[side] = `${100 * share}%`;
  $("frame").hidden = false;
}

function endFrame() {
  if (document.activeElement === $("frame")) $("crop").focus({ preventScroll: true });
  $("frame").hidden = true;
}

function crop() {
  const { bitmap, name, truth, part } = shown;
  const left = Math.floor(part.left + frame.left * part.width);
  const top = Math.floor(part.top + frame.top * part.height);
  const [width, height] = [frame.width * part.width, frame.height * part.height].map((side) => Math.ceil(side) || 1);
  read(bitmap, { name, truth, frame: { left, top, width, height } });
}

$("crop").onclick = () => {
  if (!shown) return;
  setFrame(0.25, 0.25, 0.5, 0.5);
  $("frame").focus();
  $("note").textContent = "Drag a frame, or move this one with the arrow keys (with Shift, resize it). Enter or a tap reads it.";
};
$("whole").onclick = () => {
  $("crop").focus({ preventScroll: true }); // this button will be hidden
  read(shown.bitmap, { ...shown, frame: undefined });
};
$("frame").onclick = () => $("frame").hidden || crop(); // a click follows a drag, too
$("frame").onkeydown = (event) => {
  if (event.key === "Escape") endFrame();
  const steps = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02] };
  if (!(event.key in steps)) return;
  event.preventDefault(); // the page would scroll
  const [[x, y], { left, top, width, height }] = [steps[event.key], frame];
  if (event.shiftKey) setFrame(left, top, width + x, height + y);
  else setFrame(left + x, top + y, width, height);
};
$("sheet").onpointerdown = (down) => {
  if (!shown || down.button || (down.pointerType === "touch" && $("frame").hidden)) return; // a finger scrolls
  const box = $("picture").getBoundingClientRect();
  const placeOf = (event) => [within((event.x - box.x) / box.width), within((event.y - box.y) / box.height)];
  const [x, y] = placeOf(down);
  let isDragged = false;
  window.onpointermove = (event) => {
    isDragged ||= Math.abs(event.x - down.x) > 5 && Math.abs(event.y - down.y) > 5;
    const [x2, y2] = placeOf(event);
    if (isDragged) setFrame(Math.min(x, x2), Math.min(y, y2), Math.abs(x2 - x), Math.abs(y2 - y));
  };
  window.onpointerup = window.onpointercancel = (end) => {
    window.onpointermove = window.onpointerup = window.onpointercancel = null;
    if (isDragged && end.type === "pointerup") crop();
    else if (isDragged) endFrame(); // a pen that scrolls cancels
  };
};

// The game

let game; // the captchas in the order of play, how many are answered, and what each has read right

function play() {
  const shuffled = captchas.map((captcha) => [Math.random(), captcha]).sort(([a], [b]) => a - b);
  game = { order: shuffled.map(([, captcha]) => captcha), answered: 0, you: 0, network: 0 };
  ask();
}

function ask() {
  game.isOpen = true;
  $("question").src = game.order[game.answered].file;
  $("question").alt = $("count").textContent = `Captcha ${game.answered + 1} of ${captchas.length}`;
  $("result").textContent = $("typed").value = "";
  $("score").textContent = `You ${game.you}, the network ${game.network}`;
  $("go").textContent = "Answer";
  $("typed").focus();
}

async function check(typed) {
  const round = game;
  game.isOpen = false;
  $("go").disabled = true; // until the network has answered
  const { truth } = game.order[game.answered++];
  await $("question").decode(); // that is, until it has come
  const bitmap = await createImageBitmap($("question"));
  const { pixels } = prepare(bitmap);
  bitmap.close();
  const { text } = await readPixels(await network, pixels);
  if (game !== round) return; // another round has begun
  game.you += typed === truth;
  game.network += text === truth;
  const mark = (answer) => `${answer || "nothing"}\u00A0${answer === truth ? "✓" : "✗"}`;
  $("result").textContent = `The captcha says ${truth}. You read ${mark(typed)}, the network read ${mark(text)}`;
  $("score").textContent = `You ${game.you}, the network ${game.network}`;
  $("go").textContent = game.answered < captchas.length ? "Next" : "Play again";
}

$("play").onclick = () => {
  $("game").showModal();
  play();
};
$("stop").onclick = () => $("game").close();
$("round").onsubmit = (event) => {
  event.preventDefault();
  const typed = $("typed").value.replace(/\s/g, "").toUpperCase();
  if (!game.isOpen) game.answered < captchas.length ? ask() : play();
  else if (typed) check(typed).catch((error) => ($("result").textContent = error.message)).finally(() => {
    $("go").disabled = false;
    if (document.activeElement !== $("typed")) $("go").focus(); // which it lost when it was disabled
  });
};

// The captchas that come with the page, and the first of them read

let next = 0; // the captcha after the one that was opened last
const buttons = captchas.map(({ file, truth }, i) => {
  const name = `Captcha ${i + 1}`;
  const picture = Object.assign(new Image(128, 64), { src: file, alt: name, draggable: false });
  const onclick = () => {
    next = (i + 1) % captchas.length;
    read(picture.decode().then(() => createImageBitmap(picture)), { name, truth });
  };
  return make("button", { name, onclick }, picture);
});
$("captchas").append(...buttons);
$("next").onclick = () => {
  [$("list").hidden, $("samples").hidden] = [true, false];
  buttons[next].click();
};
$("next").click();
$("right").textContent = `${right} %`;

// Only now, so that nothing is fetched twice.
await ours;
await navigator.serviceWorker?.register("worker.js");
await navigator.serviceWorker?.ready;
$("offline").hidden = !navigator.serviceWorker;
