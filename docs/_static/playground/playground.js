// The page: what is drawn becomes features, features become a head, and the head answers.

import * as ort from './vendor/ort.wasm.min.mjs';
import {Drawing} from './drawing.js';
import * as learning from './learning.js';

const FORMAT = 'mapsto playground 1', MAX_CLASSES = 10, MAX_EXAMPLES = 200, MAX_LABEL = 40;
const $ = id => document.getElementById(id);
const say = text => { $('status').textContent = text; };
const state = {examples: [], head: null, classes: []};
let session = null, turn = 0;

/** Features of SIZE × SIZE pixels. */
async function featuresOf(pixels) {
  const {SIZE, normalised} = learning;
  const input = new ort.Tensor('float32', normalised(pixels), [1, 1, SIZE, SIZE]);
  const found = await session.run({[session.inputNames[0]]: input});
  return Array.from(found[session.outputNames[0]].data);
}

function pictureOf(pixels, text) {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = learning.SIZE;
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', text);
  const image = new ImageData(learning.SIZE, learning.SIZE);
  pixels.forEach((value, k) => image.data.set([255 - value, 255 - value, 255 - value, 255], 4 * k));
  canvas.getContext('2d').putImageData(image, 0, 0);
  return canvas;
}

function element(name, text = '', className = '') {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function learn() {
  const {examples} = state;
  state.classes = [...new Set(examples.map(one => one.label))];
  const labels = examples.map(one => state.classes.indexOf(one.label));
  state.head = state.classes.length < 2 ? null
    : learning[$('method').value](examples.map(one => one.features), labels, state.classes.length);
  $('known').replaceChildren(...state.classes.map(label => Object.assign(element('option'), {value: label})));
  $('classes').replaceChildren(...state.classes.flatMap(label => {
    const own = examples.filter(one => one.label === label), list = element('ul', '', 'pictures');
    list.append(...own.map((one, n) => {
      const item = element('li');
      item.append(pictureOf(one.pixels, `example ${n + 1} of class ${label}`));
      return item;
    }));
    const group = element('div');
    group.append(element('h3', `${label} (${own.length})`), list);
    return [group];
  }));
  for (const id of ['save', 'remove', 'restart']) $(id).disabled = !examples.length;
  $('download').disabled = !state.head;
  return predict();
}

function drawn() {
  const {rgba, width, height} = drawing.picture();
  return learning.prepared(rgba, width, height);
}

async function predict() {
  const mine = ++turn;
  if (!state.head || drawing.empty) {
    $('answer').textContent = state.head ? 'Draw, and see what it is taken for.' : 'Add examples of two classes, then draw one more.';
    $('bars').replaceChildren();
    $('near').replaceChildren();
    return;
  }
  const features = await featuresOf(drawn());
  if (mine !== turn || !state.head) return;
  const shares = learning.softmax(learning.scores(state.head, features));
  const best = shares.indexOf(Math.max(...shares)), percent = share => `${(100 * share).toFixed(0)} %`;
  $('answer').textContent = `${state.classes[best]}, confidence ${percent(shares[best])}`;
  $('bars').replaceChildren(...shares.map((share, c) => {
    const item = element('li'), bar = element('span', '', 'bar'), fill = element('i');
    fill.style.width = `${100 * share}%`;
    bar.setAttribute('aria-hidden', 'true');
    bar.append(fill);
    item.append(element('span', state.classes[c]), bar, element('span', percent(share), 'share'));
    return item;
  }));
  $('near').replaceChildren(...learning.nearest(state.examples.map(one => one.features), features).map(({n, distance}) => {
    const item = element('li'), {label, pixels} = state.examples[n];
    item.append(pictureOf(pixels, `example of class ${label}`), `${label}, distance ${distance.toFixed(2)}`);
    return item;
  }));
}

/** Adds examples of a label and their pixels; all or none. */
async function add(given) {
  const labels = new Set([...state.examples, ...given].map(one => one.label));
  if (labels.size > MAX_CLASSES) throw new Error(`That would be ${labels.size} classes. Use at most ${MAX_CLASSES}.`);
  if (state.examples.length + given.length > MAX_EXAMPLES) throw new Error(`Use at most ${MAX_EXAMPLES} examples.`);
  const made = [];
  for (const {label, pixels} of given) made.push({label, pixels, features: await featuresOf(pixels)});
  state.examples.push(...made);
  await learn();
}

function label() {
  const text = $('label').value.trim();
  if (!text) throw new Error('Name the class first.');
  return text;
}

async function addDrawing() {
  if (drawing.empty) throw new Error('Draw something first.');
  const name = label();
  await add([{label: name, pixels: drawn()}]);
  drawing.clear();
  say(`Added an example of ${name}. ${state.examples.length} examples of ${state.classes.length} classes.`);
}

async function addFiles(files) {
  const name = label(), given = [];
  for (const file of files) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      throw new Error(`${file.name} is no image that the browser reads. Give PNG or JPEG.`);
    }
    const {width, height} = bitmap;
    if (width * height > 25e6) throw new Error(`${file.name} has ${width} × ${height} pixels. Give at most 25 megapixels.`);
    const context = new OffscreenCanvas(width, height).getContext('2d');
    context.drawImage(bitmap, 0, 0);
    given.push({label: name, pixels: learning.prepared(context.getImageData(0, 0, width, height).data, width, height)});
  }
  await add(given);
  say(`Added ${given.length} images of ${name}.`);
}

/** The examples of a saved file; throws an error that says what is wrong. */
function opened(text) {
  let found;
  try { found = JSON.parse(text); } catch (error) { throw new Error(`The file is no JSON (${error.message}).`); }
  if (found?.format !== FORMAT || !Array.isArray(found.examples)) throw new Error(`The file is none that this page saved ("format": "${FORMAT}").`);
  return found.examples.map((one, n) => {
    const good = typeof one?.label === 'string' && one.label.trim() && one.label.length <= MAX_LABEL && Array.isArray(one.pixels)
      && one.pixels.length === learning.SIZE ** 2 && one.pixels.every(value => Number.isInteger(value) && value >= 0 && value <= 255);
    if (!good) throw new Error(`Example ${n + 1} of the file needs a label and ${learning.SIZE ** 2} whole numbers from 0 to 255.`);
    return {label: one.label.trim(), pixels: Uint8Array.from(one.pixels)};
  });
}

async function open(text) {
  const given = opened(text), before = state.examples;
  state.examples = [];
  try { await add(given); } catch (error) { state.examples = before; throw error; }
  say(`${given.length} examples of ${state.classes.length} classes. Now draw one more.`);
}

function download(name, content) {
  const link = element('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content)], {type: 'application/json'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Runs what a control does; what goes wrong is said on the page. */
const on = (id, event, act) => $(id).addEventListener(event, async happened => {
  try { await act(happened); } catch (error) { say(error.message); }
});

const drawing = new Drawing($('canvas'), () => predict().catch(error => say(error.message)));
drawing.said = text => { $('cell').textContent = text; };
on('undo', 'click', () => drawing.undo());
on('clear', 'click', () => drawing.clear());
on('add', 'click', addDrawing);
on('files', 'change', async event => { try { await addFiles(event.target.files); } finally { event.target.value = ''; } });
on('canvas', 'dragover', event => event.preventDefault());
on('canvas', 'drop', event => { event.preventDefault(); return addFiles(event.dataTransfer.files); });
on('method', 'change', learn);
on('ten', 'click', async () => open(await (await fetch('ten_digits.json')).text()));
on('load', 'change', async event => {
  const [file] = event.target.files;
  try { if (file) await open(await file.text()); } finally { event.target.value = ''; }
});
on('save', 'click', () => download('examples.json', {format: FORMAT, classes: state.classes,
  examples: state.examples.map(({label, pixels}) => ({label, pixels: Array.from(pixels)}))}));
on('download', 'click', () => download('head.json', {format: 'mapsto playground head 1', method: $('method').value,
  classes: state.classes, ...state.head}));
on('remove', 'click', () => { state.examples.pop(); return learn(); });
on('restart', 'click', () => { state.examples = []; return learn(); });

const acting = ['add', 'files', 'ten', 'load'];
for (const id of acting) $(id).disabled = true;
try {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL('./vendor/', import.meta.url).href;
  session = await ort.InferenceSession.create(new URL('./model.onnx', import.meta.url).href, {executionProviders: ['wasm']});
  for (const id of acting) $(id).disabled = false;
  say('The network is ready.');
  await learn();
} catch (error) {
  say(`The network cannot be loaded (${error.message}). Serve this folder, as with: python -m http.server`);
}
export {featuresOf};
