"""`online.tabular` as it is at one moment, as one graph of ONNX: all its members and their mixture, which learn no more.

Past events, trees, weights and tables of labels are constants, and the last label is the last one that was learnt: what looks at the labels
alone gives one answer for ever. Neighbours are sums in the learner's own order, so that of two events as near the same one counts. What is
worked out in float64 there is in float32 here: a number that lies nearer to a tree's edge than float32 can tell falls to the edge's own
side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.onnx_head import IR, OPSET
from mapsto.nn.online.onnx_nodes import Nodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TabularSnapshot", "snapshot_model"]

_TREES_OPSET = 3
"""Of the operators of trees, ``ai.onnx.ml``."""

_NEAR_ROWS, _RING = 2000, 5000
_EXPERTS = ((5, 2000), (15, 2000), (5, 500), (5, 150))
"""Of the neighbours: how many, of how many events."""
_FARTHEST = 8.0
_NEARNESS = 0.05
_WORD_INPUTS, _BINS = 32, 64
_HIDDEN = 64
_MOST_SQUARES, _MOST_NETWORK = 128, 512
_UNIFORM = 0.02
_LEAF, _WORD = 0, 2
_NODE = np.dtype([("threshold", "<f8"), ("child", "<i4"), ("column", "<u2"), ("kind", "u1"), ("missing_left", "u1")])


@dataclass(frozen=True)
class _Trees:
    """The finished trees of a forest, one behind the other."""

    nodes: NDArray[Any]
    """Of `_NODE`; children are numbered within their tree."""
    sizes: NDArray[np.int64]
    """(trees,), nodes of each."""
    leaves: NDArray[np.float64]
    """(leaves, targets): what each adds to the forest's answer."""
    leaf_counts: NDArray[np.int64]
    """(trees,), leaves of each."""


class TabularSnapshot:
    """What the learner holds, read from the arrays of its state.

    Parameters
    ----------
    arrays
        By name, as `NativeTabular.arrays` gives them.
    values
        Whether it learns values.
    categories
        Of each input column, how many words it has; 0 for numbers.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, values: bool, categories: Sequence[int]) -> None:
        self._arrays, self._values, self._categories = arrays, values, categories
        self._words = arrays["inputs.words"].astype(bool)
        self.classes = int(arrays["classes"][0])
        """1 of values."""
        inverse = arrays["nearest.near_inverses"]
        self.means = np.where(self._words, 0.0, arrays["nearest.near_means"])
        """(columns,): by these numbers are scaled before they come to the graph; words are not."""
        self.stds = np.where(self._words | (inverse == 0), 1.0, 1.0 / np.where(inverse == 0, 1.0, inverse))
        mean, variance = float(arrays["target.mean"][0]), float(arrays["target.variance"][0])
        self.mean = mean
        """Of the values that were learnt."""
        self.deviation = variance**0.5 if variance > 1e-12 * (mean * mean + variance) else 1.0
        """Of the values that were learnt: the unit of all members."""
        self.learnt = int(arrays["ring.count"][0])
        """Labels that were learnt; without one there is nothing to write."""
        self._forests = [self._trees(f"forest{number}.") for number in range(4) if f"forest{number}.nodes" in arrays]
        self._members = arrays["mixer.weights"].size // (2 if values else 4)
        self.looks_at_labels = self._members > len(_EXPERTS) + len(self._forests) + 6
        self.parameters = 0
        """Numbers that decide the answer, a node of a tree as two; set by `write`."""
        self.macs = 0
        """Multiply-accumulates of an event; set by `write`."""

    @property
    def unit(self) -> float | None:
        """Of values, their standard deviation."""
        return self.deviation if self._values else None

    # -- what the state holds

    def _trees(self, prefix: str) -> _Trees:
        """The trees of a forest but the last, which is being built; of values their leaves in standard deviations of the target."""
        arrays = self._arrays
        sizes = arrays[f"{prefix}nodes_of_trees"][:-1].astype(np.int64)
        counts = arrays[f"{prefix}leaves_of_trees"][:-1].astype(np.int64)
        nodes = np.frombuffer(arrays[f"{prefix}nodes"].tobytes(), _NODE)[: sizes.sum()]
        width = 2 if self._values else self.classes
        leaves = arrays[f"{prefix}leaf_counts"].reshape(-1, width)[: counts.sum()].astype(np.float64)
        if self._values:
            center, scale = np.repeat(arrays[f"{prefix}units"].reshape(-1, 2)[:-1], counts, axis=0).T
            leaves = ((center + scale * leaves[:, 1] / leaves[:, 0] - self.mean) / self.deviation)[:, None]
        else:
            leaves = leaves / leaves.sum(axis=1, keepdims=True)
        return _Trees(nodes, sizes, leaves / max(len(sizes), 1), counts)

    def _past(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """The last events, the newest first: features (rows, columns) as neighbours see them, NaN where missing; labels (rows,)."""
        arrays = self._arrays
        x, y = arrays["ring.x"].reshape(-1, len(self._words)), arrays["ring.y"]
        count = int(arrays["ring.count"][0])
        slots = (count - 1 - np.arange(min(count, _NEAR_ROWS))) % _RING
        scaled = (x[slots] - arrays["nearest.near_means"]) * arrays["nearest.near_inverses"]
        return np.where(self._words, x[slots], np.clip(scaled, -_FARTHEST, _FARTHEST)).astype(np.float32), y[slots]

    # -- the graph

    def write(self, nodes: Nodes, source: str, *, scaled: bool) -> str:
        """Add the graph from `source` (N, columns), float32, NaN where a value is missing and words as the numbers of their categories.

        Parameters
        ----------
        nodes
            Are added to.
        source
            The events.
        scaled
            Whether numbers come as ``(x - means) / stds``; otherwise raw.

        Returns
        -------
        str
            The name of the output: of classes (N, classes), the logarithm of their probabilities; of values (N, 1).
        """
        if not scaled:
            moved = nodes.add("Sub", source, nodes.constant(self.means))
            source = nodes.add("Mul", moved, nodes.constant(1.0 / self.stds))
        missing = nodes.add("IsNaN", source)
        known = nodes.add("Where", missing, nodes.constant(0.0), source)
        rows = nodes.add("Shape", source, start=0, end=1)
        members = self._nearest(nodes, known, missing)
        members += self._forest_members(nodes, known, missing, rows, scaled=scaled)
        members += self._networks(nodes, known, missing)
        if self.looks_at_labels:
            members.append(self._same(nodes, self._of_labels(), rows))
        together = nodes.add("Concat", *members, axis=1)
        output = self._mixed_values(nodes, together) if self._values else self._mixed(nodes, together)
        self.parameters = sum(int(np.prod(constant.dims)) for constant in nodes.constants)
        self.parameters += sum(forest.leaves.size + 2 * len(forest.nodes) for forest in self._forests)
        return output

    def _same(self, nodes: Nodes, answers: NDArray[np.float64], rows: str) -> str:
        """Answers (members, classes) that are the same for every event."""
        held = answers[:, 0] if self._values else answers
        shape = nodes.add("Concat", rows, nodes.constant(held.shape, np.int64), axis=0)
        return nodes.add("Expand", nodes.constant(held[None]), shape)

    def _nearest(self, nodes: Nodes, known: str, missing: str) -> list[str]:
        """What each expert of neighbours says."""
        past, labels = self._past()
        columns = past.shape[1]
        limits = np.where(self._words, 2.0**30, _FARTHEST)
        seen = nodes.add("Max", nodes.add("Min", known, nodes.constant(limits)), nodes.constant(-limits))
        constant = ~self._words & (self._arrays["nearest.near_inverses"] == 0)
        if constant.any():
            seen = nodes.add("Mul", seen, nodes.constant(~constant))
        each = nodes.several("Split", seen, outputs=columns, axis=1, num_outputs=columns)
        there = nodes.several("Split", nodes.add("Not", missing), outputs=columns, axis=1, num_outputs=columns)
        nothing, one, total = nodes.constant(0.0), nodes.constant(1.0), ""
        for column in range(columns):
            gaps = np.isnan(past[:, column])
            held = nodes.constant(np.where(gaps, -1.0, past[:, column])[None])
            if self._words[column]:
                other = nodes.constant(np.where(gaps, 1.0, 2.0)[None])
                part = nodes.add("Where", nodes.add("Equal", held, each[column]), nothing, other)
            else:
                apart = nodes.add("Sub", held, each[column])
                part = nodes.add("Mul", apart, apart)
                if gaps.any():
                    part = nodes.add("Where", nodes.constant(gaps[None], np.bool_), one, part)
            part = nodes.add("Where", there[column], part, nothing)
            total = nodes.add("Add", total, part) if total else part
        units = (labels - self.mean) / self.deviation
        held_labels = nodes.constant(units) if self._values else nodes.constant(labels, np.int64)
        lists = [self._found(nodes, total, len(past), k, window) for k, window in _EXPERTS[1:]]
        few = [nodes.constant([0], np.int64), nodes.constant([_EXPERTS[0][0]], np.int64), nodes.constant([1], np.int64)]
        first = tuple(nodes.add("Slice", part, few[0], few[1], few[2]) for part in lists[0])
        return [self._vote(nodes, distances, places, held_labels) for distances, places in [first, *lists]]

    @staticmethod
    def _found(nodes: Nodes, distances: str, rows: int, k: int, window: int) -> tuple[str, ...]:
        """Squared distances and places (N, k) of the nearest of the newest events; of two as near the newer one."""
        if window < rows:
            ends = [nodes.constant([each], np.int64) for each in (0, window, 1)]
            distances = nodes.add("Slice", distances, *ends)
        count = nodes.constant([min(k, window, rows)], np.int64)
        return tuple(nodes.several("TopK", distances, count, outputs=2, axis=1, largest=0, sorted=1))

    def _vote(self, nodes: Nodes, distances: str, places: str, labels: str) -> str:
        """Labels by 1 / distance: probabilities (N, 1, classes), or the mean value (N, 1)."""
        far = nodes.add("Add", nodes.add("Sqrt", distances), nodes.constant(_NEARNESS))
        weight, theirs = nodes.add("Reciprocal", far), nodes.add("Gather", labels, places)
        axis = nodes.constant([1], np.int64)
        total = nodes.add("ReduceSum", weight, axis, keepdims=1)
        if self._values:
            return nodes.add("Div", nodes.add("ReduceSum", nodes.add("Mul", weight, theirs), axis, keepdims=1), total)
        shares = nodes.add("Unsqueeze", nodes.add("Div", weight, total), axis)
        depth, ends = nodes.constant([self.classes], np.int64), nodes.constant([0.0, 1.0])
        return nodes.add("MatMul", shares, nodes.add("OneHot", theirs, depth, ends, axis=-1))

    def _forest_members(self, nodes: Nodes, known: str, missing: str, rows: str, *, scaled: bool) -> list[str]:
        """What each forest says."""
        if not self._forests:
            return []
        events = self._tree_inputs(nodes, known, missing)
        found: list[str] = []
        for forest in self._forests:
            if not len(forest.sizes):
                nothing = np.zeros((1, 1)) if self._values else np.full((1, self.classes), 1.0 / self.classes)
                found.append(self._same(nodes, nothing, rows))
                continue
            answer = nodes.trees(events, self.classes, self._attributes(forest, scaled=scaled))
            axis = nodes.constant([1], np.int64)
            found.append(answer if self._values else nodes.add("Unsqueeze", answer, axis))
        return found

    def _tree_inputs(self, nodes: Nodes, known: str, missing: str) -> str:
        """What trees look at: the columns, and behind them of each word -1 at its bin and 0 at the others; NaN for what is missing."""
        nothing = nodes.constant(np.nan)
        parts = [nodes.add("Where", missing, nothing, known)]
        of_words = np.flatnonzero(self._words).tolist()
        coded = self._coded(nodes, known, _BINS, _bins) if of_words else ""
        for column in of_words:
            place = nodes.constant([column], np.int64)
            word, gap = nodes.add("Gather", coded, place, axis=1), nodes.add("Gather", missing, place, axis=1)
            same = nodes.add("Equal", word, nodes.constant(np.arange(self._bin_counts[column])[None]))
            split = nodes.add("Where", same, nodes.constant(-1.0), nodes.constant(0.0))
            parts.append(nodes.add("Where", gap, nothing, split))
        return nodes.add("Concat", *parts, axis=1)

    @property
    def _bin_counts(self) -> NDArray[np.int64]:
        """(columns,), how many bins the words of a column have; 0 of numbers."""
        return np.where(self._words, np.minimum(np.maximum(self._categories, 1), _BINS), 0)

    def _attributes(self, forest: _Trees, *, scaled: bool) -> dict[str, Any]:
        """A forest as the lists that ONNX holds it in."""
        nodes, sizes = forest.nodes, forest.sizes
        trees = np.repeat(np.arange(len(sizes)), sizes)
        numbers = np.arange(len(nodes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        is_leaf, columns = nodes["kind"] == _LEAF, nodes["column"].astype(np.int64)
        if scaled:
            thresholds = ((nodes["threshold"] - self.means[columns]) / self.stds[columns]).astype(np.float32)
        else:  # as the graph does it
            moved = nodes["threshold"].astype(np.float32) - self.means[columns].astype(np.float32)
            thresholds = moved * (1.0 / self.stds[columns]).astype(np.float32)
        # ONNX Runtime 1.32 sends some events the wrong way at a BRANCH_EQ; so words are split at -0.5 of their bin's own input
        of_words = nodes["kind"] == _WORD
        bins = np.where(of_words, nodes["threshold"], 0.0).astype(np.int64)
        behind = len(self._words) + np.cumsum(self._bin_counts) - self._bin_counts
        columns = np.where(of_words, behind[columns] + bins, columns)
        thresholds = np.where(of_words, np.float32(-0.5), thresholds)
        first_leaves = np.cumsum(forest.leaf_counts) - forest.leaf_counts
        leaf_rows = forest.leaves[(nodes["child"] + first_leaves[trees])[is_leaf]]
        of_leaf, targets = np.nonzero(leaf_rows if not self._values else np.ones_like(leaf_rows))
        modes = np.where(is_leaf, b"LEAF", b"BRANCH_LEQ")
        return {
            "nodes_treeids": trees,
            "nodes_nodeids": numbers,
            "nodes_featureids": np.where(is_leaf, 0, columns),
            "nodes_values": np.where(is_leaf, np.float32(0), thresholds),
            "nodes_modes": modes.tolist(),
            "nodes_truenodeids": np.where(is_leaf, 0, nodes["child"].astype(np.int64)),
            "nodes_falsenodeids": np.where(is_leaf, 0, nodes["child"].astype(np.int64) + 1),
            "nodes_missing_value_tracks_true": np.where(is_leaf, 0, nodes["missing_left"].astype(np.int64)),
            "target_treeids": trees[is_leaf][of_leaf],
            "target_nodeids": numbers[is_leaf][of_leaf],
            "target_ids": targets,
            "target_weights": leaf_rows[of_leaf, targets].astype(np.float32),
        }

    def _coded(self, nodes: Nodes, known: str, most: int, code: Any) -> str:
        """The events with words by the numbers that they share where there are more than `most`: ``code`` of all numbers."""
        crowded = [column for column, count in enumerate(self._categories) if count > most]
        if not crowded:
            return known
        columns = len(self._categories)
        each = nodes.several("Split", known, outputs=columns, axis=1, num_outputs=columns)
        for column in crowded:
            table = nodes.constant(code(np.arange(self._categories[column])))
            each[column] = nodes.add("Gather", table, nodes.add("Cast", each[column], to=7))
        return nodes.add("Concat", *each, axis=1)

    def _networks(self, nodes: Nodes, known: str, missing: str) -> list[str]:
        """What the four softmax regressions, least squares and the network say, all of them from one product."""
        arrays, classes = self._arrays, self.classes
        inputs, places = self._inputs(nodes, known, missing)
        grown = int(arrays["grown_inputs"][0])

        def of_inputs(name: str, most: int, outputs: int) -> NDArray[np.float64]:
            count = min(grown, most)
            held = arrays[name].astype(np.float64).reshape(count, -1)[:, :outputs]
            rows = np.zeros((len(places) + 1, outputs))
            has = (places >= 0) & (places < count)
            rows[:-1][has] = held[places[has]]
            rows[-1] = held[0]
            return rows

        parts = [of_inputs(f"linear{number}.weights", grown, classes) for number in range(4)]
        parts += [of_inputs("squares.weights", _MOST_SQUARES, classes), of_inputs("mlp.first", _MOST_NETWORK, _HIDDEN)]
        weights = np.concatenate(parts, axis=1)
        rows = min(self.learnt, _NEAR_ROWS)
        self.macs = rows * len(self._words) + weights[:-1].size + _HIDDEN * classes + 6 * self._members * classes
        sums = nodes.add("Gemm", inputs, nodes.constant(weights[:-1]), nodes.constant(weights[-1]))
        sizes = nodes.constant([4 * classes, classes, _HIDDEN], np.int64)
        linear, squares, hidden = nodes.several("Split", sums, sizes, outputs=3, axis=1)
        second = arrays["mlp.second"].astype(np.float64).reshape(_HIDDEN + 1, -1)[:, :classes]
        hidden = nodes.add("Relu", hidden)
        network = nodes.add("Gemm", hidden, nodes.constant(second[:-1]), nodes.constant(second[-1]))
        if self._values:
            return [linear, squares, network]

        def shaped(name: str, members: int) -> str:
            return nodes.add("Reshape", name, nodes.constant([0, members, classes], np.int64))

        estimates = shaped(nodes.add("Relu", squares), 1)
        total = nodes.add("ReduceSum", estimates, nodes.constant([2], np.int64), keepdims=1)
        shares = nodes.add("Div", estimates, nodes.add("Max", total, nodes.constant(1e-30)))
        some = nodes.add("Greater", total, nodes.constant(0.0))
        shares = nodes.add("Where", some, shares, nodes.constant(np.full((1, 1, classes), 1.0 / classes)))
        return [
            nodes.add("Softmax", shaped(linear, 4), axis=2),
            shares,
            nodes.add("Softmax", shaped(network, 1), axis=2),
        ]

    def _inputs(self, nodes: Nodes, known: str, missing: str) -> tuple[str, NDArray[np.int64]]:
        """What linear members see of events (N, inputs), and of each input its place in the learner's row; -1 where it has none."""
        arrays = self._arrays
        parts: list[str] = []
        places: list[NDArray[np.int64]] = []
        numbers = np.flatnonzero(~self._words)
        if len(numbers):
            mean, variance = arrays["inputs.means"][numbers], arrays["inputs.variances"][numbers]
            varies = variance > 1e-12 * (mean * mean + variance)
            inverse = np.where(varies, 1.0 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
            theirs = nodes.add("Gather", known, nodes.constant(numbers, np.int64), axis=1)
            theirs = nodes.add("Clip", theirs, nodes.constant(-1e30), nodes.constant(1e30))  # 0 times infinity is NaN
            theirs = nodes.add("Mul", theirs, nodes.constant(self.stds[numbers] * inverse))
            theirs = nodes.add("Add", theirs, nodes.constant((self.means[numbers] - mean) * inverse))
            theirs = nodes.add("Clip", theirs, nodes.constant(-_FARTHEST), nodes.constant(_FARTHEST))
            gaps = nodes.add("Gather", missing, nodes.constant(numbers, np.int64), axis=1)
            parts += [nodes.add("Where", gaps, nodes.constant(0.0), theirs), nodes.add("Cast", gaps, to=1)]
            places += [arrays["inputs.number_inputs"][numbers], arrays["inputs.missing_inputs"][numbers]]
        of_words = np.flatnonzero(self._words)
        if len(of_words):
            coded = self._coded(nodes, known, _WORD_INPUTS, _slots)
            coded = nodes.add("Where", missing, nodes.constant(-1.0), coded)
            taken = arrays["inputs.word_inputs"].reshape(-1, _WORD_INPUTS)
            for column in of_words.tolist():
                width = min(max(self._categories[column], 1), _WORD_INPUTS)
                word = nodes.add("Gather", coded, nodes.constant([column], np.int64), axis=1)
                same = nodes.add("Equal", word, nodes.constant(np.arange(width)[None]))
                parts.append(nodes.add("Cast", same, to=1))
                places.append(taken[column, :width])
        return nodes.add("Concat", *parts, axis=1), np.concatenate(places).astype(np.int64)

    def _of_labels(self) -> NDArray[np.float64]:
        """What the two members say (2, classes) that look at the labels alone."""
        arrays, classes = self._arrays, self.classes
        found: list[NDArray[np.float64]] = []
        for number in range(2):
            if self._values:
                weight = float(arrays[f"markov{number}.weight"][0])
                value = float(arrays[f"markov{number}.sum"][0]) / weight if weight > 0 else self.mean
                found.append(np.array([(value - self.mean) / self.deviation]))
                continue
            last = int(arrays[f"markov{number}.last"][0])
            counts = arrays[f"markov{number}.counts"].reshape(classes, classes)
            row = counts[last] if last >= 0 else np.zeros(classes)
            found.append((row + 1.0 / classes) / (1.0 + row.sum()))
        return np.stack(found)

    def _mixed(self, nodes: Nodes, members: str) -> str:
        """The logarithm of the mixtures' probabilities (N, classes), of the members' (N, members, classes)."""
        arrays, count = self._arrays, self._members
        right = arrays["mixer.right"].reshape(2, count)
        pools = np.stack([_softmax(0.3 * right[0]), _softmax(right[1])])
        most = nodes.add("Mul", members, nodes.constant(1.0 - _UNIFORM))
        logs = nodes.add("Log", nodes.add("Add", most, nodes.constant(_UNIFORM / self.classes)))
        powers = nodes.add("MatMul", nodes.constant(arrays["mixer.weights"].reshape(4, count)), logs)
        geometric = nodes.add("Softmax", powers, axis=2)
        pooled = nodes.add("MatMul", nodes.constant(pools), members)
        mixtures = nodes.add("Concat", geometric, pooled, axis=1)
        last = nodes.add("MatMul", nodes.constant(_softmax(0.3 * arrays["mixer.good"])[None]), mixtures)
        answer = nodes.add("Squeeze", last, nodes.constant([1], np.int64))
        return nodes.add("Log", nodes.add("Max", answer, nodes.constant(1e-30)), output="output")

    def _mixed_values(self, nodes: Nodes, members: str) -> str:
        """The mixtures' value (N, 1), of the members' (N, members): all of it is linear."""
        arrays, count = self._arrays, self._members
        losses = arrays["mixer.losses"].reshape(2, count)
        pools = np.stack([_softmax(-losses[0]), _softmax(-4.0 * losses[1])])
        each = np.concatenate([arrays["mixer.weights"].reshape(2, count), pools])
        weights = _softmax(-arrays["mixer.totals"]) @ each
        scale, offset = nodes.constant((self.deviation * weights)[:, None]), nodes.constant([self.mean])
        return nodes.add("Gemm", members, scale, offset, output="output")


def snapshot_model(snapshot: TabularSnapshot, encoder: bytes | None, *, scaled: bool = False) -> bytes:
    """The snapshot as a model from ``input`` (N, columns), or from what an encoder takes whose model gives an embedding.

    `scaled` says whether numbers come as ``(x - means) / stds``.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes = Nodes("learner_")
    if encoder is None:
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", len(snapshot.means)])
        graph = helper.make_graph([], "network", [given], [])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        model.producer_name = "mapsto"
        source = "input"
    else:
        model = onnx.load_from_string(encoder)
        source = model.graph.output[0].name
    if "ai.onnx.ml" not in {each.domain for each in model.opset_import}:
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", _TREES_OPSET))
    output = snapshot.write(nodes, source, scaled=scaled)
    graph = model.graph
    graph.node.extend(nodes.nodes)
    graph.initializer.extend(nodes.constants)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", snapshot.classes]))
    return model.SerializeToString(deterministic=True)


def _bins(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The bins by which trees know words."""
    mixed = (codes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(58)
    return np.where(codes < _BINS, codes, mixed).astype(np.float64)


def _slots(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The inputs by which linear members know words."""
    return (codes % _WORD_INPUTS).astype(np.float64)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()
