// Reads captchas: networks, their answers, pictures. The steps are those of captcha_reader/reading.py.

import * as ort from "./ort.wasm.bundle.min.js";

const BLANK = 0; // CTC's answer for "nothing new here"
const [NARROWEST, WIDEST] = [64, 320]; // pixels, as a network of any width wants a picture
const LONGEST_SIDE = 1280; // pixels; a larger picture is made smaller first
const MOST = 25_000_000; // bytes of a file
const FRAME = /!\xF9\x04[^]{4}\0[!,]|ANMF|fcTL/g; // before each frame of an animated GIF, WebP or PNG
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

// The network

export const runtime = ort.env.wasm;
runtime.numThreads = 1; // a captcha is so little work that sharing it costs more

// Opens a network from the bytes of an .onnx file, in which `make export` also wrote which characters it
// knows and which size of picture it takes.
export async function openNetwork(bytes, name) {
  try {
    const description = propertiesOf(bytes).captcha_reader;
    if (!description) throw new Error("it does not say which characters it knows");
    const { version, alphabet, height, width, filter } = JSON.parse(description);
    if (version !== 1 || filter !== "bilinear") throw new Error("it needs a newer version of this page");
    const session = await ort.InferenceSession.create(bytes);
    const network = { alphabet, names: ["-", ...alphabet], height, width: width === "free" ? 0 : width, session };
    const [column] = await columnsOf(network, new Uint8Array(3 * height * (network.width || NARROWEST)));
    if (column.length === network.names.length) return network;
    throw new Error(`it knows ${column.length - 1} characters, but its alphabet is ${alphabet}`);
  } catch (error) {
    throw new Error(`${name} was not written by "make export", or it is damaged (${error.message}).`);
  }
}

// Returns the properties of an ONNX file, field 14 of its outermost message: keys and their values.
// (ONNX Runtime reads them, too, but its JavaScript has no function that returns them.)
function propertiesOf(bytes) {
  const toText = (content) => new TextDecoder().decode(content);
  const pairs = fieldsOf(bytes).filter(([number]) => number === 14);
  return Object.fromEntries(pairs.map(([, pair]) => {
    const { 1: key, 2: value } = Object.fromEntries(fieldsOf(pair));
    return [toText(key), toText(value)];
  }));
}

// Returns the fields of a protobuf message that have a length: pairs of a number and its bytes.
function fieldsOf(bytes) {
  const fields = [];
  let place = 0;
  const next = () => { // a whole number, seven bits a byte; the eighth says that more follow
    let [number, unit] = [0, 1];
    for (; bytes[place] >= 128; place++, unit *= 128) number += (bytes[place] - 128) * unit;
    return number + bytes[place++] * unit;
  };
  while (place < bytes.length) {
    const tag = next(); // eight times the number of the field, and how its content is stored
    const length = { 0: () => next() && 0, 1: () => 8, 2: next, 5: () => 4 }[tag % 8]?.();
    if (length === undefined) return []; // no such message
    if (tag % 8 === 2) fields.push([Math.floor(tag / 8), bytes.subarray(place, place + length)]);
    place += length;
  }
  return fields;
}

// Returns one array for each column of 8 pixels: the probabilities of its answers.
async function columnsOf(network, rgb) {
  const shape = [1, network.height, rgb.length / network.height / 3, 3];
  const feeds = { pictures: new ort.Tensor("uint8", rgb, shape) };
  const { probabilities } = await network.session.run(feeds, ["probabilities"]);
  if (!probabilities.data.every(Number.isFinite)) throw new Error("the network answers with no probabilities");
  const [, steps, classes] = probabilities.dims;
  const column = (_, t) => probabilities.data.slice(t * classes, (t + 1) * classes);
  return Array.from({ length: steps }, column);
}

// From answers to a text

// Merges equal neighbours of the likeliest answers, then drops the blanks: greedy decoding, lesson 3.
function spell(columns, names) {
  const path = columns.map((column) => column.indexOf(Math.max(...column)));
  const label = path.filter((answer, t) => answer !== BLANK && answer !== path[t - 1]);
  const text = label.map((answer) => names[answer]).join("");
  return { columns, path, text, confidence: text ? chanceOf(label, columns) : null };
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

// From a picture to a text

// Opens a file as a picture; the error says what is wrong with it.
export async function toBitmap(file) {
  const expected = "A PNG, JPEG, GIF or WebP of at most 25 MB is expected.";
  if (file.size > MOST) throw new Error(`${file.name} is ${Math.ceil(file.size / 1e6)} MB. ${expected}`);
  const bytes = new TextDecoder("latin1").decode(await file.arrayBuffer()); // as characters
  if (bytes.match(FRAME)?.length > 1) throw new Error(`${file.name} is animated; save one frame of it.`);
  return createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
    if (bytes.slice(0, 1000).includes("<svg"))
      throw new Error(`${file.name} is an SVG drawing; save it as PNG.`);
    throw new Error(`${file.name} is not a picture that this browser can open. ${expected}`);
  });
}

const canvas = document.createElement("canvas"); // one for all, as browsers free them late

// Takes a picture, or the part of it in a frame, to what is read: laid on a ground, without a margin.
// Returns its pixels, and which part of the picture they are.
export function prepare(bitmap, frame = { left: 0, top: 0, width: bitmap.width, height: bitmap.height }) {
  const { left, top, width, height } = frame;
  const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale)); // which clears it
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, left, top, width, height, 0, 0, canvas.width, canvas.height);
  const picture = context.getImageData(0, 0, canvas.width, canvas.height);
  layOnGround(picture.data);
  context.putImageData(picture, 0, 0);
  const box = { left: 0, top: 0, width: canvas.width, height: canvas.height };
  let pixels = picture;
  for (let inner; (inner = findBox(pixels)).width < box.width; ) { // a margin, then the line of a frame
    Object.assign(box, inner, { left: box.left + inner.left, top: box.top + inner.top });
    pixels = context.getImageData(box.left, box.top, box.width, box.height);
  }
  const part = {
    left: left + box.left / scale, top: top + box.top / scale,
    width: box.width / scale, height: box.height / scale,
  };
  if (scale === 1 || 2 * box.width > canvas.width) return { pixels, part };
  // What is small in a large picture is prepared again from all its pixels, with a little of its margin.
  const edge = Math.ceil(1 / scale);
  const x = Math.max(left, Math.floor(part.left) - edge);
  const y = Math.max(top, Math.floor(part.top) - edge);
  return prepare(bitmap, {
    left: x, top: y,
    width: Math.min(left + width - x, Math.ceil(part.width) + 2 * edge + 1),
    height: Math.min(top + height - y, Math.ceil(part.height) + 2 * edge + 1),
  });
}

// Lays transparent pixels on white. If most of a picture is transparent, what is visible is ink: if
// that is very light, the ground is black.
function layOnGround(rgba) {
  let [visible, light] = [0, 0];
  for (let i = 0; i < rgba.length; i += 4) {
    visible += rgba[i + 3];
    light += rgba[i + 3] * lumaOf(rgba, i);
  }
  const isInk = visible < 0.5 * 255 * (rgba.length / 4);
  const ground = isInk && light > 192 * visible ? 0 : 255;
  for (let i = 0; i < rgba.length; i++) {
    const alpha = rgba[i | 3] / 255; // the fourth of its pixel
    rgba[i] = i % 4 === 3 ? 255 : alpha * rgba[i] + (1 - alpha) * ground;
  }
}

const lumaOf = (rgb, i) => 0.299 * rgb[i] + 0.587 * rgb[i + 1] + 0.114 * rgb[i + 2];

// Returns where a picture is within its margin. A margin is cut off where a straight edge on all four
// sides separates it from paper of another colour; else the box is the whole picture.
function findBox({ data, width, height }) {
  const whole = { left: 0, top: 0, width, height };
  const differs = new Uint8Array(width * height); // from the pixel at the top left
  const [rows, columns] = [new Array(height).fill(0), new Array(width).fill(0)];
  for (let i = 0; i < differs.length; i++) {
    const far = (c) => Math.abs(data[4 * i + c] - data[c]) > 4;
    if (!far(0) && !far(1) && !far(2)) continue;
    differs[i] = 1;
    rows[Math.floor(i / width)]++;
    columns[i % width]++;
  }
  const isLong = (count, _, counts) => count >= 0.9 * Math.max(...counts);
  const ends = (counts) => [counts.findIndex(isLong), counts.findLastIndex(isLong)];
  const [[top, bottom], [left, right]] = [ends(rows), ends(columns)];
  const box = { left, top, width: right - left + 1, height: bottom - top + 1 };
  if (!(left && top && right < width - 1 && bottom < height - 1)) return whole;
  if (box.width < 16 || box.height < 16) return whole;
  let inside = 0;
  for (let y = top; y <= bottom; y++)
    for (let x = left; x <= right; x++) inside += differs[y * width + x];
  const outside = sum(rows) - inside;
  if (outside > 0.01 * (differs.length - box.width * box.height)) return whole;
  const across = (y) => differs.subarray(y * width + left, y * width + right + 1);
  const down = (x) => Uint8Array.from({ length: box.height }, (_, y) => differs[(top + y) * width + x]);
  const lines = [across(top), across(bottom), down(left), down(right)];
  const isEdge = (line) => sum(line) >= 0.95 * line.length;
  return lines.every(isEdge) ? box : whole;
}

// Reads pixels from `prepare`. If they are light on dark, or there is nothing to read in them, the
// inverse is read, too. `confidence` is null where nothing is found.
export async function readPixels(network, pixels) {
  const rgb = scaled(pixels, network);
  const readOne = async (rgb) => spell(await columnsOf(network, rgb), network.names);
  const direct = await readOne(rgb);
  const isDark = isLightOnDark(rgb);
  if (direct.text && !isDark) return direct;
  const inverse = { ...(await readOne(rgb.map((value) => 255 - value))), isInverse: true };
  return isDark ? better(inverse, direct) : better(direct, inverse);
}

// Returns the better of two readings: of two texts, the likelier one. If only the second has a text, that
// is better if it is more likely than not.
const better = (first, second) =>
  (second.confidence ?? 0) > (first.confidence ?? 0.5) ? second : first;

// The ground is the median luma; what is more than 32 away from it is ink.
function isLightOnDark(rgb) {
  const lumas = Float64Array.from({ length: rgb.length / 3 }, (_, i) => lumaOf(rgb, 3 * i));
  const sorted = lumas.toSorted();
  const half = sorted.length / 2; // even, as a network's height is
  const ground = (sorted[half - 1] + sorted[half]) / 2;
  const ink = lumas.filter((luma) => Math.abs(luma - ground) > 32);
  return sum(ink) / ink.length > ground;
}

// Scales pixels to what the network wants, and smooths them if they are as grainy as a JPEG and are not made
// smaller; returns RGB bytes.
function scaled({ data, width: w, height: h }, network) {
  const wanted = 8 * Math.floor((16 * w + h) / (2 * h));
  const width = network.width || Math.min(WIDEST, Math.max(NARROWEST, wanted));
  const rgb = { data: data.filter((_, i) => i % 4 !== 3), width: w, height: h };
  const small = resampleAndTurn(resampleAndTurn(rgb, width), network.height).data;
  return h <= network.height && isGrainy(rgb) ? smoothed(small, width) : small;
}

// Returns whether most neighbours that differ by no more than 8 levels do differ.
function isGrainy({ data, width }) {
  let [equal, near] = [0, 0];
  for (let i = 0; i < data.length; i += 3) {
    if ((i / 3 + 1) % width === 0) continue; // the last one of its row
    const most = Math.max(...[0, 1, 2].map((c) => Math.abs(data[i + c] - data[i + c + 3])));
    if (most === 0) equal++;
    else if (most <= 8) near++;
  }
  return near > equal;
}

// Replaces each pixel by a mean of itself and its eight neighbours; those at the edge stay.
function smoothed(rgb, width) {
  const row = 3 * width;
  const mean = (level, i) => {
    const x = Math.floor(i / 3) % width;
    if (x === 0 || x === width - 1 || i < row || i >= rgb.length - row) return level;
    const three = (i) => rgb[i - 3] + 2 * rgb[i] + rgb[i + 3];
    return Math.round((three(i - row) + 2 * three(i) + three(i + row)) / 16);
  };
  return rgb.map(mean);
}

// Makes a picture `size` wide, and turns rows into columns, so that twice in a row is both directions.
// This is Pillow's BILINEAR: means with the weights of a triangle that covers all old pixels. (How a
// canvas scales depends on the browser.)
function resampleAndTurn({ data, width, height }, size) {
  const turned = new Uint8Array(3 * size * height);
  const step = width / size;
  const reach = Math.max(1, step);
  for (let x = 0; x < size; x++) {
    const center = (x + 0.5) * step;
    const first = Math.max(0, Math.floor(center - reach + 0.5));
    const end = Math.min(width, Math.floor(center + reach + 0.5));
    const weight = (_, i) => Math.max(0, 1 - Math.abs(first + i + 0.5 - center) / reach);
    const weights = Array.from({ length: end - first }, weight);
    const total = sum(weights);
    for (let y = 0; y < height; y++)
      for (let c = 0; c < 3; c++) {
        const start = 3 * (y * width + first) + c;
        const weighted = weights.reduce((all, weight, i) => all + weight * data[start + 3 * i], 0);
        turned[3 * (x * height + y) + c] = Math.round(weighted / total); // halves up, as Pillow does
      }
  }
  return { data: turned, width: height, height: size };
}

// Returns whether this browser hides pixels from pages, as some do against fingerprinting: a page then gets
// white, noise or an error. So a known pattern is drawn and read back. Up to 8 levels of noise pass, as
// captchas are still read: Brave and the private windows of Firefox and Safari add at most 3.
export function hidesPixels() {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new ImageData(64, 2);
  known.data.forEach((_, i, data) => (data[i] = i % 4 === 3 ? 255 : (37 * i) % 256));
  try {
    context.putImageData(known, 0, 0);
    const seen = context.getImageData(0, 0, 64, 2).data;
    return seen.some((level, i) => Math.abs(level - known.data[i]) > 8);
  } catch {
    return true;
  }
}
