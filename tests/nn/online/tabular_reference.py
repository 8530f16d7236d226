"""The learner of tables once more, in plain Python and NumPy, by which the C++ is checked: the same members, event by event.

Nothing here is quick, clever or shared with the C++; exponentials and logarithms are the system's. Where that has float32, so has this.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

EXAMPLE, QUESTION, LATE_LABEL = range(3)
RING, NEAR, BINS, MISSING = 5000, 2000, 64, 64
F = np.float32


class Random:
    """SplitMix64."""

    def __init__(self, seed: int) -> None:
        self.counter = seed

    def next(self) -> int:
        mask = 2**64 - 1
        self.counter = (self.counter + 0x9E3779B97F4A7C15) & mask
        z = self.counter
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def below(self, bound: int) -> int:
        return ((self.next() >> 32) * bound) >> 32

    def symmetric(self) -> float:
        drawn = self.next()
        return ((drawn - 2**64 if drawn >= 2**63 else drawn) >> 11) * 2.0**-52


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.array([math.exp(each) for each in (scores - scores.max()).tolist()])
    return powers / in_order(powers)


def in_order(values: Any) -> float:
    """The sum from the first to the last."""
    total = 0.0
    for value in values:
        total += value
    return total


def clipped(value: float, most: float) -> float:
    return max(-most, min(most, value))


class Inputs:
    """Columns as standardized inputs."""

    def __init__(self) -> None:
        self.words: list[bool] = []
        self.count: list[float] = []
        self.mean: list[float] = []
        self.variance: list[float] = []
        self.places: dict[Any, int] = {}
        self.width = 1

    def add_column(self, of_words: bool) -> None:
        self.words.append(of_words)
        for each in (self.count, self.mean, self.variance):
            each.append(0.0)

    def _place(self, *key: Any) -> None:
        if key not in self.places:
            self.places[key] = self.width
            self.width += 1

    def see(self, x: np.ndarray) -> None:
        for c, value in enumerate(x.tolist()):
            if math.isnan(value):
                if not self.words[c] and self.count[c]:
                    self._place(c, "missing")
            elif self.words[c]:
                self._place(c, int(value) % 32)
            else:
                self._place(c)
                self.count[c] += 1.0
                share = 1.0 / min(self.count[c], 5000.0)
                moved = value - self.mean[c]
                self.mean[c] += share * moved
                self.variance[c] = (1.0 - share) * (self.variance[c] + share * moved * moved)

    def inverse(self, c: int) -> float:
        mean, variance = self.mean[c], self.variance[c]
        return 1.0 / math.sqrt(variance) if variance > 1e-12 * (mean * mean + variance) else 0.0

    def row(self, x: np.ndarray) -> list[tuple[int, float]]:
        """What is not 0: the input and its value, in the order of columns."""
        found = [(0, 1.0)]
        for c, value in enumerate(x.tolist()):
            if math.isnan(value):
                key, z = (c, "missing"), 1.0
            elif self.words[c]:
                key, z = (c, int(value) % 32), 1.0
            else:
                key, z = (c,), clipped((value - self.mean[c]) * self.inverse(c), 8.0)
            if key in self.places and z != 0.0:
                found.append((self.places[key], z))
        return found


class Ring:
    def __init__(self) -> None:
        self.x, self.y, self.count = np.zeros((RING, 0)), np.zeros(RING), 0

    @property
    def size(self) -> int:
        return min(self.count, RING)

    def add_column(self) -> None:
        self.x = np.column_stack([self.x, np.full(RING, np.nan)])

    def slot(self, back: int) -> int:
        return (self.count - 1 - back) % RING

    def add(self, x: np.ndarray, y: float) -> int:
        slot = self.count % RING
        self.x[slot], self.y[slot] = x, y
        self.count += 1
        return slot


class Nearest:
    """Experts of the k nearest of the last `window` events."""

    experts = ((5, 2000), (15, 2000), (5, 500), (5, 150))

    def __init__(self, ring: Ring, inputs: Inputs) -> None:
        self.ring, self.inputs = ring, inputs
        self.scales: list[tuple[float, float]] = []
        self.found: list[list[tuple[float, int]]] = []

    def add_column(self) -> None:
        self.scales.append((0.0, 0.0))

    def add(self) -> None:
        if self.ring.count > 64 and self.ring.count % 64:
            return
        for c, (mean, inverse) in enumerate(self.scales):
            now = self.inputs.inverse(c)
            if self.inputs.words[c]:
                continue
            if now == 0.0 or inverse == 0.0:
                drifted = now != inverse
            else:
                drifted = abs((self.inputs.mean[c] - mean) * inverse) > 0.1 or not 0.9 <= now / inverse <= 1.1
            if drifted:
                self.scales[c] = (self.inputs.mean[c], now)

    def search(self, x: np.ndarray) -> None:
        rows = min(self.ring.count, NEAR)
        past = self.ring.x[[self.ring.slot(back) for back in range(rows)]]
        distance = np.zeros(rows, F)
        for c, value in enumerate(x.tolist()):
            if math.isnan(value):
                continue
            column = past[:, c]
            if self.inputs.words[c]:
                added = np.where(np.isnan(column), F(1), np.where(column == value, F(0), F(2)))
            else:
                mean, inverse = self.scales[c]
                z = np.clip((column - mean) * inverse, -8.0, 8.0).astype(F)
                d = z - F(clipped((value - mean) * inverse, 8.0))
                added = np.where(np.isnan(d), F(1), d * d)
            distance = distance + added
        order = np.argsort(distance, kind="stable")
        self.found = [[(float(distance[b]), int(b)) for b in order[order < window][:k]] for k, window in self.experts]

    def answer(self, classes: int, values: bool, mean: float) -> np.ndarray:
        p = np.zeros((len(self.experts), classes))
        for e, found in enumerate(self.found):
            total = 0.0
            for distance, back in found:
                weight = 1.0 / (math.sqrt(distance) + 0.05)
                y = self.ring.y[self.ring.slot(back)]
                if values:
                    p[e, 0] += weight * y
                else:
                    p[e, int(y)] += weight
                total += weight
            p[e] = p[e] / total if found else (mean if values else 1.0 / classes)
        return p


class Bins:
    """Columns as numbers of bins."""

    def __init__(self, ring: Ring, inputs: Inputs) -> None:
        self.ring, self.inputs = ring, inputs
        self.codes, self.edges = np.zeros((0, RING), int), []
        self.ready, self.next, self.pending = False, 8, 1 << 30

    def add_column(self) -> None:
        self.codes = np.vstack([self.codes, np.full((1, RING), MISSING)])
        self.edges.append([])
        self._renew(len(self.edges) - 1)

    def add(self, slot: int) -> None:
        columns, count = len(self.edges), self.ring.count
        for c in range(columns):
            self.codes[c, slot] = self._code(c, self.ring.x[slot, c])
        if count >= self.next:
            self.ready, self.pending = True, 0
            self.next = min(2 * count, RING) if count < RING else count + RING // 2
        for _ in range(columns if count <= 512 else 1):
            if self.pending < columns:
                self._renew(self.pending)
                self.pending += 1

    def _code(self, c: int, value: float) -> int:
        if math.isnan(value):
            return MISSING
        return word_bin(value) if self.inputs.words[c] else int(np.searchsorted(self.edges[c], value))

    def _renew(self, c: int) -> None:
        size = self.ring.size
        if not self.inputs.words[c]:
            column = self.ring.x[:size, c]
            values = sorted(column[~np.isnan(column)].tolist())
            n, edges = len(values), []
            if len(set(values)) <= BINS:
                places = [i for i in range(1, n) if values[i] != values[i - 1]]
            else:
                places = [self._after_equal(values, n * q // BINS) for q in range(1, BINS)]
            for i in places:
                if i < n:
                    edge = values[i - 1] + (values[i] - values[i - 1]) * 0.5
                    edge = edge if edge < values[i] else values[i - 1]
                    if not edges or edge > edges[-1]:
                        edges.append(edge)
            self.edges[c] = edges
        for slot in range(size):
            self.codes[c, slot] = self._code(c, self.ring.x[slot, c])

    @staticmethod
    def _after_equal(values: list[float], i: int) -> int:
        while i < len(values) and values[i] == values[i - 1]:
            i += 1
        return i


def word_bin(code: float) -> int:
    return int(code) if code < BINS else ((int(code) * 0x9E3779B97F4A7C15) & (2**64 - 1)) >> 58


class Tree:
    """Nodes are None (to be split), a number (a leaf's row of counts), or (column, is of words, threshold, missing left, left child)."""

    def __init__(self, columns: int, center: float = 0.0, scale: float = 1.0) -> None:
        self.center, self.scale = center, scale
        """Of values: the units of the sums in leaves."""
        self.nodes: list[Any] = [None]
        self.counts: list[np.ndarray] = []
        self.importance = np.zeros(columns)

    def in_units(self, value: float) -> Any:
        return F(clipped((value - self.center) / self.scale, 1e30))

    def leaf(self, x: np.ndarray) -> np.ndarray:
        node = self.nodes[0]
        while isinstance(node, tuple):
            column, of_words, threshold, missing_left, child = node
            value = x[column]
            left = value == threshold if of_words else value <= threshold
            node = self.nodes[child + (not (missing_left if math.isnan(value) else left))]
        return self.counts[node]


class Forest:
    """Trees that are rebuilt one after another, some nodes an event."""

    def __init__(self, most: int, window: int, least: int, share: float, columns: float, seed: int) -> None:
        self.most, self.window, self.least, self.share, self.columns = most, window, least, share, columns
        self.random, self.trees, self.building = Random(seed), [], Tree(0)
        self.stack: list[tuple[list[Any], int]] = []
        self.stride, self.credit, self.next = 0, 0.0, 0

    def answer(self, x: np.ndarray, classes: int, values: bool, mean: float) -> np.ndarray:
        if not self.trees:
            return np.full(classes, mean if values else 1.0 / classes)
        p = np.zeros(classes)
        for tree in self.trees:
            row = tree.leaf(x)
            if values:
                p += tree.center + tree.scale * (float(row[1]) / float(row[0]))
            else:
                total = F(0)
                for count in row:
                    total = total + count
                p += (1.0 / float(total)) * row.astype(float)
        return p * (1.0 / len(self.trees))

    def count(self, x: np.ndarray, y: float, values: bool) -> None:
        for tree in self.trees:
            row = tree.leaf(x)
            if values:
                row += np.array([F(1), tree.in_units(y)])
            else:
                row[int(y)] += F(1)

    def grow(self, columns: int, classes: int, values: bool) -> None:
        self.stride = 2 if values else classes
        for tree in (*self.trees, self.building):
            tree.counts = [np.pad(row, (0, self.stride - len(row))) for row in tree.counts]
            tree.importance = np.pad(tree.importance, (0, columns - len(tree.importance)))

    def work(self, units: float, ring: Ring, bins: Bins, values: bool, center: float, scale: float) -> None:
        if not bins.ready:
            return
        self.credit += units * self.share
        while self.credit > 0.0:
            if not self.stack:
                self._begin(ring, len(bins.edges), center, scale)
            self._split(ring, bins, values)
            if not self.stack:
                if len(self.trees) < self.most:
                    self.trees.append(self.building)
                else:
                    self.trees[self.next] = self.building
                self.next = (self.next + 1) % self.most

    def _begin(self, ring: Ring, columns: int, center: float, scale: float) -> None:
        n = min(ring.size, self.window)
        drawn = [0] * n
        for _ in range(n):
            drawn[self.random.below(n)] += 1
        slots = [(ring.slot(back), drawn[back]) for back in range(n) if drawn[back]]
        self.building = Tree(columns, center, scale)
        self.stack = [(slots, 0)]
        self.credit -= 2.0 * n

    def _split(self, ring: Ring, bins: Bins, values: bool) -> None:
        samples, number = self.stack.pop()
        m, columns = len(samples), len(bins.edges)
        weight = sum(each[1] for each in samples)
        if values:
            of_sample = [ring.y[slot] for slot, _ in samples]
            total = in_order(each[1] * y for each, y in zip(samples, of_sample, strict=True))
            pure = min(of_sample) == max(of_sample)
        else:
            totals = [sum(n for slot, n in samples if ring.y[slot] == k) for k in range(self.stride)]
            pure = max(totals) == weight
        best: Any = None
        if not pure and m > 1 and weight >= 2 * self.least:
            wanted = self.columns * columns if self.columns else math.sqrt(columns)
            most, chosen = max(1, min(columns, int(wanted + 0.5))), list(range(columns))
            for tried in range(columns):
                if tried >= most and best is not None:
                    break
                other = tried + self.random.below(columns - tried)
                chosen[tried], chosen[other] = chosen[other], chosen[tried]
                self.credit -= m
                if values:
                    best = self._try_values(chosen[tried], samples, ring, bins, total / weight, best)
                else:
                    best = self._try_classes(chosen[tried], samples, totals, ring, bins, best)
            self.credit -= 2.0 * (m + 8)
        else:
            self.credit -= m + 8
        if best is None:
            self.building.nodes[number] = len(self.building.counts)
            of_values = [F(weight), self.building.in_units(total / weight) * F(weight)] if values else []
            self.building.counts.append(np.array(of_values or totals, F))
            return
        gain, column, bin_, threshold, missing_left = best
        before = 0.0 if values else sum(each * each for each in totals) / weight
        self.building.importance[column] += (gain if values else gain[0] / gain[1]) - before
        of_words, child = bins.inputs.words[column], len(self.building.nodes)
        self.building.nodes[number] = (column, of_words, threshold, missing_left, child)
        self.building.nodes += [None, None]
        # the order of samples decides the last bit of sums of values, and so between splits that are equally good
        middle = 0
        for i in range(m):
            sample = samples[i]
            code = bins.codes[column, sample[0]]
            left = missing_left if code == MISSING else code == bin_ if of_words else code <= bin_
            samples[i], samples[middle] = samples[middle], sample
            middle += bool(left)
        self.stack += [(samples[middle:], child + 1), (samples[:middle], child)]

    def _candidates(self, c: int, there: list[int], bins: Bins) -> Any:
        """Each split of a column: the bin, the threshold, and which bins go left, MISSING among them where it does."""
        left: tuple[int, ...] = ()
        for code in sorted(code for code in there if code != MISSING):
            if bins.inputs.words[c]:
                yield code, float(code), (code,)
                continue
            left = (*left, code)
            last = len(left) == len(there) - (MISSING in there)
            yield code, math.inf if last else bins.edges[c][code], left
            if MISSING in there and not last:
                yield code, bins.edges[c][code], (*left, MISSING)

    def _try_classes(self, c: int, samples: list[Any], totals: list[int], ring: Ring, bins: Bins, best: Any) -> Any:
        groups: dict[int, list[int]] = {}
        codes = bins.codes[c].tolist()
        for slot, weight in samples:
            groups.setdefault(codes[slot], [0] * self.stride)[int(ring.y[slot])] += weight
        for code, threshold, goes in self._candidates(c, list(groups), bins):
            left = [sum(counts) for counts in zip(*(groups[each] for each in goes), strict=True)]
            right = [total - count for total, count in zip(totals, left, strict=True)]
            n, m = sum(left), sum(right)
            if min(n, m) < self.least:
                continue
            # sum L_k² / L + sum R_k² / R as a fraction of whole numbers
            over, under = sum(k * k for k in left) * m + sum(k * k for k in right) * n, n * m
            if best is None or over * best[0][1] > best[0][0] * under:
                best = ((over, under), c, code, threshold, MISSING in goes)
        return best

    def _try_values(self, c: int, samples: list[Any], ring: Ring, bins: Bins, center: float, best: Any) -> Any:
        groups: dict[int, list[Any]] = {}
        codes, weight, total = bins.codes[c].tolist(), 0, 0.0
        for slot, count in samples:
            value = count * (float(ring.y[slot]) - center)
            group = groups.setdefault(codes[slot], [0, 0.0])
            group[0], group[1] = group[0] + count, group[1] + value
            weight, total = weight + count, total + value
        missing = groups.get(MISSING, [0, 0.0])[1]
        for code, threshold, goes in self._candidates(c, list(groups), bins):
            n, left = sum(groups[each][0] for each in goes), in_order(groups[each][1] for each in goes)
            m, right = weight - n, total - left
            if min(n, m) < self.least:
                continue
            if MISSING in goes:
                right = total - in_order(groups[each][1] for each in goes[:-1]) - missing
            gain = left * left / n + right * right / m
            if best is None or gain > best[0]:
                best = (gain, c, code, threshold, MISSING in goes)
        return best


class Gradient:
    """Softmax or linear regression by AdaGrad, or by descent alone."""

    def __init__(self, rate: float, decay: float, adapts: bool) -> None:
        self.rate, self.decay, self.adapts = rate, decay, adapts
        self.weights = self.squares = np.zeros((0, 0))

    def grow(self, inputs: int, outputs: int) -> None:
        self.weights, self.squares = widened(self.weights, inputs, outputs), widened(self.squares, inputs, outputs)

    def answer(self, row: list[Any], values: bool) -> np.ndarray:
        scores = np.zeros(self.weights.shape[1])
        for j, z in row:
            scores = scores + z * self.weights[j]
        return scores if values else softmax(scores)

    def learn(self, row: list[Any], error: np.ndarray) -> None:
        for j, z in row:
            g = z * error
            if self.adapts:
                self.squares[j] = self.decay * self.squares[j] + g * g
                self.weights[j] -= self.rate * g / np.sqrt(self.squares[j] + 1e-8)
            else:
                self.weights[j] -= self.rate * z * error


def widened(old: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return np.pad(old, ((0, rows - old.shape[0]), (0, columns - old.shape[1])))


class LeastSquares:
    """Recursive least squares of at most 128 inputs."""

    def __init__(self) -> None:
        self.weights, self.inverse = np.zeros((0, 0)), np.zeros((0, 0))

    def grow(self, inputs: int, outputs: int) -> None:
        known, inputs = len(self.inverse), min(inputs, 128)
        self.weights = widened(self.weights, inputs, outputs)
        self.inverse = widened(self.inverse, inputs, inputs)
        for j in range(known, inputs):
            self.inverse[j, j] = 1.0

    def estimates(self, row: list[Any]) -> np.ndarray:
        found = np.zeros(self.weights.shape[1])
        for j, z in row:
            if j < len(self.inverse):
                found = found + z * self.weights[j]
        return found

    def answer(self, row: list[Any], values: bool) -> np.ndarray:
        found = self.estimates(row)
        if values:
            return found
        p = np.maximum(found, 0.0)
        return p / in_order(p) if p.any() else np.full(len(p), 1.0 / len(p))

    def learn(self, row: list[Any], target: np.ndarray) -> None:
        row = [(j, z) for j, z in row if j < len(self.inverse)]
        gain, error = np.zeros(len(self.inverse)), target - self.estimates(row)
        for j, z in row:
            gain = gain + z * self.inverse[j]
        spread = 1.0
        for j, z in row:
            spread += z * gain[j]
        step = gain * (1.0 / spread)
        self.inverse = self.inverse - np.outer(step, gain)
        self.weights = self.weights + np.outer(step, error)


class Mlp:
    """64 ReLUs in float32, trained by Adam."""

    def __init__(self, seed: int) -> None:
        self.random, self.steps = Random(seed), 0
        self.first = [np.zeros((0, 64), F) for _ in range(3)]
        """Weights (inputs, 64), and Adam's means of the gradient and of its square."""
        self.second = [np.zeros((65, 0), F) for _ in range(3)]
        """(65, outputs), of which the last row is the bias."""

    def grow(self, inputs: int, outputs: int) -> None:
        inputs, known = min(inputs, 512), len(self.first[0])
        self.first = [widened(each, inputs, 64) for each in self.first]
        for j in range(known, inputs):
            for k in range(64):
                self.first[0][j, k] = F(self.random.symmetric() * math.sqrt(6.0 / (inputs + 8)))
        self.second = [widened(each, 65, outputs) for each in self.second]

    def forward(self, row: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        sums = np.zeros(64, F)
        for j, z in row:
            if j < len(self.first[0]):
                sums = sums + F(z) * self.first[0][j]
        hidden, (weights, *_) = np.maximum(sums, F(0)), self.second
        return hidden, np.cumsum(np.vstack([weights[64:], hidden[:, None] * weights[:64]]), axis=0)[-1]

    def answer(self, row: list[Any], values: bool) -> np.ndarray:
        output = self.forward(row)[1].astype(float)
        return output if values else softmax(output)

    def learn(self, examples: list[tuple[list[Any], float]], values: bool) -> None:
        gradients = [np.zeros_like(self.first[0]), np.zeros_like(self.second[0])]
        for row, label in examples:
            hidden, output = self.forward(row)
            if values:
                error = np.array([clipped(float(output[0]) - label, 3.0)]).astype(F)
            else:
                scores = softmax(output.astype(float))
                scores[int(label)] -= 1.0
                error = scores.astype(F)
            gradients[1] += np.outer(np.append(hidden, F(1)), error)
            back = np.zeros(64, F)
            for k, each in enumerate(error):
                back = back + self.second[0][:64, k] * each
            back[hidden == 0] = 0
            for j, z in row:
                if j < len(self.first[0]):
                    gradients[0][j] += F(z) * back
        self.steps += 1
        rate = F(3e-3 * math.sqrt(1.0 - 0.999**self.steps) / (1.0 - 0.9**self.steps))
        share, b1, b2 = F(1.0 / len(examples)), F(0.9), F(0.999)
        for (weights, mean, square), gradient in zip((self.first, self.second), gradients, strict=True):
            g = gradient * share
            mean[:] = b1 * mean + (F(1) - b1) * g
            square[:] = b2 * square + (F(1) - b2) * g * g
            weights[:] = weights - rate * mean / (np.sqrt(square) + F(1e-8))


class LabelTable:
    """What label follows which, fading; of values their fading mean."""

    def __init__(self, decay: float) -> None:
        self.decay, self.counts, self.last = decay, np.zeros((0, 0)), -1
        self.sum = self.weight = 0.0

    def answer(self, classes: int, values: bool, mean: float) -> np.ndarray:
        if values:
            return np.array([self.sum / self.weight if self.weight else mean])
        row = widened(self.counts, classes, classes)[self.last] if self.last >= 0 else np.zeros(classes)
        return (row + 1.0 / classes) / in_order([1.0, *row])

    def learn(self, label: float, classes: int, values: bool) -> None:
        if values:
            self.sum, self.weight = self.decay * self.sum + label, self.decay * self.weight + 1.0
            return
        self.counts = widened(self.counts, classes, classes)
        if self.last >= 0:
            self.counts[self.last] *= self.decay
            self.counts[self.last, int(label)] += 1.0
        self.last = int(label)


class Mixer:
    """Four log-linear mixtures and two pools, weighed by how often each was right lately."""

    def __init__(self, members: int) -> None:
        self.weights = np.full((4, members), 1.0 / members)
        self.right, self.good, self.events = np.zeros((2, members)), np.zeros(6), 0

    def mix(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All six (6, classes), and the members' logarithms."""
        members, classes = p.shape
        logs = np.array([[math.log(0.98 * each + 0.02 / classes) for each in row] for row in p.tolist()])
        mixed = np.zeros((6, classes))
        for e in range(4):
            for m in range(members):
                mixed[e] += self.weights[e, m] * logs[m]
            mixed[e] = softmax(mixed[e])
        for e, rate in enumerate((0.3, 1.0)):
            for m, share in enumerate(softmax(rate * self.right[e])):
                mixed[4 + e] += share * p[m]
        return mixed, logs

    def answer(self, p: np.ndarray) -> np.ndarray:
        mixed, answer = self.mix(p)[0], np.zeros(p.shape[1])
        for e, weight in enumerate(softmax(0.3 * self.good)):
            answer += weight * mixed[e]
        return answer

    def learn(self, p: np.ndarray, label: int) -> None:
        mixed, logs = self.mix(p)
        self.events += 1
        fading = 1.0 / math.sqrt(1.0 + self.events / 100.0)
        for e, rate in enumerate((0.1, 0.3, 0.3 * fading, fading)):
            mean = np.zeros(len(p))
            for k in range(p.shape[1]):
                mean += mixed[e, k] * logs[:, k]
            self.weights[e] -= rate / len(p) * (mean - logs[:, label])
        for e, memory in enumerate((0.998, 0.999)):
            self.right[e] = memory * self.right[e] + (p.argmax(1) == label)
        self.good = 0.998 * self.good + (mixed.argmax(1) == label)


class ValueMixer:
    """Two linear mixtures and two pools, weighed by their squared errors of late."""

    def __init__(self, members: int) -> None:
        self.weights = np.full((2, members), 1.0 / members)
        self.losses, self.total = np.zeros((2, members)), np.zeros(4)

    def mix(self, u: np.ndarray) -> np.ndarray:
        pools = [softmax(-rate * losses) for rate, losses in zip((1.0, 4.0), self.losses, strict=True)]
        return np.array([in_order(weights * u) for weights in (*self.weights, *pools)])

    def answer(self, u: np.ndarray) -> float:
        return in_order(softmax(-self.total) * self.mix(u))

    def learn(self, u: np.ndarray, target: float) -> None:
        mixed = self.mix(u)
        length = in_order([1e-3, *(u * u)])
        for e, step in enumerate((0.003, 0.03)):
            self.weights[e] -= step * clipped(mixed[e] - target, 5.0) / length * u
        for e, memory in enumerate((0.998, 0.99)):
            self.losses[e] = memory * self.losses[e] + np.clip(u - target, -5.0, 5.0) ** 2
        self.total = 0.998 * self.total + np.clip(mixed - target, -5.0, 5.0) ** 2


class Reference:
    """The learner: takes what `NativeTabular` takes."""

    def __init__(self, *, values: bool, forests: bool, labels: bool, work: float, seed: int) -> None:
        self.values, self.units = values, work or 10_000.0
        self.inputs, self.ring = Inputs(), Ring()
        self.nearest, self.bins = Nearest(self.ring, self.inputs), Bins(self.ring, self.inputs)
        settings = ((24, 5000, 1, 1.0, 0.0), (16, 5000, 6, 0.5, 0.6), (16, 1000, 2, 0.5, 0.0), (12, 250, 2, 0.4, 0.0))
        self.forests = [Forest(*each, seed * 64 + 2 + f) for f, each in enumerate(settings)] if forests else []
        self.linear = [Gradient(0.2, 1.0, True), Gradient(0.05, 0.999, True)]
        self.linear += [Gradient(0.01, 1.0, False), Gradient(0.05, 1.0, False)]
        self.squares, self.mlp = LeastSquares(), Mlp(seed * 64 + 1)
        self.tables = [LabelTable(decay) for decay in ((0.0, 0.98) if values else (0.995, 0.9))] if labels else []
        self.members = 4 + len(self.forests) + len(self.linear) + 2 + len(self.tables)
        self.mixer: Any = ValueMixer(self.members) if values else Mixer(self.members)
        self.classes, self.grown = int(values), (0, 0)
        self.count = self.mean = self.variance = 0.0

    def add_column(self, *, of_words: bool) -> None:
        self.inputs.add_column(of_words)
        self.ring.add_column()
        self.nearest.add_column()
        self.bins.add_column()
        for forest in self.forests:
            forest.grow(len(self.inputs.words), self.classes, self.values)

    def learn(self, x: Any, kinds: Any, slots: Any, labels: Any, kept: dict[int, Any]) -> list[np.ndarray]:
        """The scores of each event; `kept` holds what is kept of questions by slot."""
        scores: list[np.ndarray] = []
        for event, kind, slot, label in zip(x, kinds.tolist(), slots.tolist(), labels.tolist(), strict=True):
            if kind == LATE_LABEL:
                features, p, answer = kept.pop(slot)
                features = np.pad(features, (0, len(event) - len(features)), constant_values=np.nan)
                p = widened(p, len(p), self.classes)
                self._grow_members()
                self._take_in(features, p, label)
            else:
                self.inputs.see(event)
                p, answer = self.answer(event)
                if kind == EXAMPLE:
                    self._take_in(event, p, label)
                elif slot >= 0:
                    kept[slot] = (event.copy(), p, answer)
            scores.append(answer)
        return scores

    @property
    def deviation(self) -> float:
        return math.sqrt(self.variance) if self.variance > 1e-12 * (self.mean**2 + self.variance) else 1.0

    def standardized(self, value: Any) -> Any:
        return (value - self.mean) / self.deviation

    def binned(self, x: np.ndarray) -> np.ndarray:
        of_words = zip(x.tolist(), self.inputs.words, strict=True)
        return np.array([word_bin(v) if words and not math.isnan(v) else v for v, words in of_words])

    def answer(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The members' answers (members, classes) and the mixture's (classes,)."""
        classes, values = self.classes, self.values
        if not classes:
            return np.zeros((self.members, 0)), np.zeros(0)
        row = [(j, z) for j, z in self.inputs.row(x) if j < self.grown[0]]
        self.nearest.search(x)
        p = list(self.nearest.answer(classes, values, self.mean))
        p += [forest.answer(self.binned(x), classes, values, self.mean) for forest in self.forests]
        for member in (*self.linear, self.squares, self.mlp):
            said = member.answer(row, values) if self.grown[1] else np.zeros(classes)
            p.append(self.mean + self.deviation * said if values else said)
        p += [table.answer(classes, values, self.mean) for table in self.tables]
        together = np.array(p)
        if values:
            mixed = self.mixer.answer(self.standardized(together[:, 0]))
            return together, np.array([self.mean + self.deviation * mixed])
        return together, self.mixer.answer(together)

    def _grow_members(self) -> None:
        if self.grown != (self.inputs.width, self.classes):
            self.grown = (self.inputs.width, self.classes)
            for member in (*self.linear, self.squares, self.mlp):
                member.grow(*self.grown)

    def _take_in(self, x: np.ndarray, p: np.ndarray, label: float) -> None:
        values = self.values
        if values:
            self.mixer.learn(self.standardized(p[:, 0]), self.standardized(label))
            self.count += 1.0
            share, moved = 1.0 / min(self.count, 5000.0), label - self.mean
            self.mean += share * moved
            self.variance = (1.0 - share) * (self.variance + share * moved * moved)
        elif label < self.classes:
            self.mixer.learn(p, int(label))
        else:
            self.classes = int(label) + 1
            for forest in self.forests:
                forest.grow(len(self.inputs.words), self.classes, False)
        self._grow_members()
        row = self.inputs.row(x)
        target = np.array([self.standardized(label)]) if values else np.eye(self.classes)[int(label)]
        for member in self.linear:
            error = member.answer(row, values) - target
            member.learn(row, np.clip(error, -3.0, 3.0) if values else error)
        self.squares.learn(row, target)
        for forest in self.forests:
            forest.count(self.binned(x), label, values)
        for table in self.tables:
            table.learn(label, self.classes, values)
        slot = self.ring.add(x, label)
        self.nearest.add()
        if self.forests:
            self.bins.add(slot)
            for forest in self.forests:
                forest.work(self.units, self.ring, self.bins, values, self.mean, self.deviation)
        examples = [(row, label)]
        for _ in range(max(1, 7 * 64 // max(64, self.inputs.width)) if self.ring.count > 1 else 0):
            again = self.ring.slot(self.mlp.random.below(self.ring.size))
            examples.append((self.inputs.row(self.ring.x[again]), self.ring.y[again]))
        self.mlp.learn([(z, self.standardized(y) if values else y) for z, y in examples], values)
