// From a picture to the network's input, and from features to a head: the same arithmetic as mapsto's in Python.

export const SIZE = 28;
export const PENALTY = 1;
const MEAN = 0.1, STD = 0.2;  // of the network's signature

/** Grey of RGBA pixels on white, Rec. 601 luma in 16-bit fixed point as Pillow has it. */
export function grey(rgba) {
  const out = new Uint8Array(rgba.length / 4);
  for (let at = 0; at < out.length; at++) {
    const alpha = rgba[4 * at + 3] / 255;
    const [r, g, b] = [0, 1, 2].map(c => Math.round(rgba[4 * at + c] * alpha + 255 * (1 - alpha)));
    out[at] = (r * 19595 + g * 38470 + b * 7471 + 32768) >> 16;
  }
  return out;
}

/** For each of `to` pixels, which of `from` it is made of and how much: a triangle, wider where it makes smaller. */
function shares(from, to) {
  const scale = from / to, wide = Math.max(scale, 1);
  return Array.from({length: to}, (_, at) => {
    const centre = (at + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - wide + 0.5)), last = Math.min(from, Math.trunc(centre + wide + 0.5));
    const weights = [];
    for (let x = first; x < last; x++) weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / wide)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return {first, weights: weights.map(weight => weight / sum)};
  });
}

/** Grey pixels resized to SIZE × SIZE, bilinearly with antialiasing: columns first, rounded to 8 bits after each direction. */
export function resized(pixels, width, height) {
  const byte = value => Math.max(0, Math.min(255, Math.floor(value + 0.5)));
  const across = shares(width, SIZE), down = shares(height, SIZE);
  const middle = new Uint8Array(height * SIZE), out = new Uint8Array(SIZE * SIZE);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < SIZE; x++)
      middle[y * SIZE + x] = byte(across[x].weights.reduce((sum, w, k) => sum + w * pixels[y * width + across[x].first + k], 0));
  for (let y = 0; y < SIZE; y++)
    for (let x = 0; x < SIZE; x++)
      out[y * SIZE + x] = byte(down[y].weights.reduce((sum, w, k) => sum + w * middle[(down[y].first + k) * SIZE + x], 0));
  return out;
}

/** Inverted where the border is bright, so that ink is light on a dark ground. */
export function lightened(pixels) {
  let sum = 0;
  for (let k = 0; k < SIZE; k++) sum += pixels[k] + pixels[(SIZE - 1) * SIZE + k];
  for (let k = 1; k < SIZE - 1; k++) sum += pixels[k * SIZE] + pixels[k * SIZE + SIZE - 1];
  return sum > 127.5 * 4 * (SIZE - 1) ? pixels.map(value => 255 - value) : pixels;
}

/** SIZE × SIZE pixels from RGBA, as a package would read them from a file. */
export const prepared = (rgba, width, height) => lightened(resized(grey(rgba), width, height));

/** The network's input of such pixels. */
export const normalised = pixels => Float32Array.from(pixels, value => (value / 255 - MEAN) / STD);

const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);

/** Class means as a linear head, as `adapt.centroid` makes it: at a scale where scores of the examples differ by a few units. */
export function centroid(features, labels, classes) {
  const size = features[0].length;
  let weight = Array.from({length: classes}, () => new Array(size).fill(0));
  const counts = new Array(classes).fill(0);
  features.forEach((row, n) => { counts[labels[n]]++; row.forEach((value, k) => { weight[labels[n]][k] += value; }); });
  weight = weight.map((row, c) => row.map(value => 2 * value / counts[c]));
  let bias = weight.map(row => -dot(row, row) / 4);
  const spreads = features.map(row => {
    const found = scores({weight, bias}, row), mean = found.reduce((a, b) => a + b, 0) / classes;
    return Math.sqrt(found.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (classes - 1));
  });
  const factor = 2 / Math.max(spreads.reduce((a, b) => a + b, 0) / spreads.length, 1e-6);
  return {weight: weight.map(row => row.map(value => value * factor)), bias: bias.map(value => value * factor)};
}

/** Ridge regression on one-hot labels, a column of ones for the bias: W = Xᵀ (X Xᵀ + λ I)⁻¹ Y. */
export function ridge(features, labels, classes, penalty = PENALTY) {
  const rows = features.map(row => [...row, 1]), count = rows.length;
  const system = rows.map((a, i) => [...rows.map((b, j) => dot(a, b) + (i === j ? penalty : 0)),
    ...Array.from({length: classes}, (_, c) => (labels[i] === c ? 1 : 0))]);
  for (let i = 0; i < count; i++)  // Gauss–Jordan; the matrix is positive definite, so no row need be exchanged
    for (let j = 0; j < count; j++) {
      if (j === i) continue;
      const factor = system[j][i] / system[i][i];
      for (let k = i; k < count + classes; k++) system[j][k] -= factor * system[i][k];
    }
  const solution = Array.from({length: classes}, (_, c) =>
    rows[0].map((_, k) => rows.reduce((sum, row, i) => sum + row[k] * system[i][count + c] / system[i][i], 0)));
  return {weight: solution.map(row => row.slice(0, -1)), bias: solution.map(row => row.at(-1))};
}

export const scores = (head, row) => head.weight.map((weight, c) => dot(weight, row) + head.bias[c]);

/** Scores as shares of 1. */
export function softmax(values) {
  const most = Math.max(...values), powers = values.map(value => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map(value => value / sum);
}

/** Places of the `count` rows nearest to `row` by Euclidean distance, the nearest first. */
export function nearest(features, row, count = 3) {
  const far = features.map((other, n) => ({n, distance: Math.sqrt(other.reduce((sum, value, k) => sum + (value - row[k]) ** 2, 0))}));
  return far.sort((a, b) => a.distance - b.distance).slice(0, count);
}
