"""Small optimisation tasks, many at once, and how good an update rule is at them: the estimates of its gradient.

With parameters θ, perturbations ε_k ~ N(0, σ²) and L_k the mean loss of the k-th truncation of an unroll, persistent evolution strategies
estimate ``∇ E[L] ≈ mean_pairs (Σ_{j ≤ k} ε_j) (L_k(θ + ε) − L_k(θ − ε)) / 2σ²``; each member of a pair goes on from its own state (Vicol,
Metz and Sohl-Dickstein, "Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent Evolution Strategies", 2021).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DataError
from mapsto.kinds import Samples
from mapsto.nn.meta.learned_optimizer.rule import Layout, Slots, update
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.networks.update_rule import DECAYS, UpdateRule
from mapsto.process import State

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Distribution", "Estimator", "Images", "Optimisee", "Population", "Problem"]

Estimator: TypeAlias = Literal["pes", "es", "backprop"]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
}
_FLOOR = 1e-3
_WORST = 3.0
"""The highest measure of a loss: one that has diverged counts as twenty times the loss of not having learnt anything."""


@dataclass(frozen=True, kw_only=True)
class Optimisee:
    """A small network as a function of one vector of parameters, so that many can be run at once.

    Convolutions of 3 × 3 with stride 2, then linear layers; `norm` normalises each layer by the statistics of the batch.

    >>> Optimisee(inputs=(2,), hidden=(3,), outputs=1).shapes
    [(3, 2), (3,), (1, 3), (1,)]
    """

    inputs: tuple[int, ...]
    """(D,) or (C, H, W)."""
    convolutions: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()
    outputs: int = 1
    activation: str = "relu"
    norm: bool = False

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of its tensors: of each layer the weight, the bias, and with `norm` the gain; the output has no gain."""
        found: list[tuple[int, ...]] = []
        before, size = self.inputs[0], self.inputs[1:]
        for width in self.convolutions:
            found += [(width, 9 * before), *[(width,)] * (1 + self.norm)]
            before, size = width, tuple((side + 1) // 2 for side in size)
        before *= math.prod(size)
        for width in self.hidden:
            found += [(width, before), *[(width,)] * (1 + self.norm)]
            before = width
        return [*found, (self.outputs, before), (self.outputs,)]

    @cached_property
    def layout(self) -> Layout:
        """Which parameters belong to which tensor."""
        return Layout.of(self.shapes)

    def initial(self, random: np.random.Generator, count: int) -> Tensor:
        """First parameters of `count` networks, shape (count, N): from half of He et al.'s to the whole, times a factor of each's own."""
        factors = np.exp(random.normal(0, 0.3, (count, 1))) * random.uniform(0.4, 1)
        parts: list[NDArray[Any]] = []
        vectors = 0
        for shape in self.shapes:
            vectors = vectors + 1 if len(shape) == 1 else 0
            if len(shape) == 2:
                parts.append(factors * random.normal(0, math.sqrt(2 / shape[1]), (count, math.prod(shape))))
            else:
                parts.append(np.full((count, *shape), float(vectors == 2)))
        return torch.from_numpy(np.concatenate(parts, 1).astype(np.float32))

    def __call__(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Outputs (K, B, outputs) of K networks, their parameters (K, N), for inputs (K, B, ...)."""
        tensors = iter(
            part.unflatten(1, shape)
            for part, shape in zip(parameters.split(self.layout.sizes, 1), self.shapes, strict=True)
        )
        x = inputs.movedim(2, -1) if self.convolutions else inputs
        for _ in self.convolutions:
            patches = _patches(x)
            x = self._activated(patches.flatten(1, 3), tensors).unflatten(1, patches.shape[1:4])
        x = (x.movedim(-1, 2) if self.convolutions else x).flatten(2)
        for _ in self.hidden:
            x = self._activated(x, tensors)
        return x @ next(tensors).mT + next(tensors)[:, None]

    def _activated(self, x: Tensor, tensors: Iterator[Tensor]) -> Tensor:
        """The next layer's (K, rows, outputs), of inputs (K, rows, inputs)."""
        x = x @ next(tensors).mT
        bias = next(tensors)[:, None]
        if self.norm:
            gain = next(tensors)[:, None]
            mean, variance = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
            x = (x - mean) * torch.rsqrt(variance + 1e-5) * gain
        return _ACTIVATIONS[self.activation](x + bias)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A task for each of P pairs of copies: the same network, other data, other first parameters."""

    network: Optimisee
    horizon: int
    """Steps of the whole unroll."""
    batch: int
    """Samples of a step."""
    first: Tensor
    """First parameters (P, N)."""
    inputs: Tensor
    """Inputs (P, n, ...)."""
    targets: Tensor
    """Classes (P, n), or numbers (P, n, 1)."""
    naive: Tensor
    """The loss of not knowing anything, shape (P,)."""
    schedule: str = "cosine"
    """Of the learning rate: `cosine`, or `constant`."""

    def rate(self, step: int) -> float:
        """What the change of step 0, 1, … is multiplied with."""
        return 1.0 if self.schedule == "constant" else (1 + math.cos(math.pi * step / self.horizon)) / 2

    def weight(self, step: int) -> float:
        """What the loss of step 0, 1, … counts, 1 on average: late losses more, as what training comes to matters."""
        return 2 * (step + 1) / (self.horizon + 1)

    def loss(self, parameters: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """The losses (K,) of K networks, their parameters (K, N), each on its batch (K, B, ...)."""
        outputs = self.network(parameters, inputs)
        if targets.is_floating_point():
            return (outputs - targets).square().mean((1, 2))
        return (
            nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
            .view(targets.shape)
            .mean(1)
        )

    def to(self, device: torch.device) -> Problem:
        """This problem on a device."""
        tensors = {name: getattr(self, name).to(device) for name in ("first", "inputs", "targets", "naive")}
        return dataclasses.replace(self, **tensors)


class Images:
    """Samples of classes, prepared once."""

    def __init__(self, samples: Samples) -> None:
        if samples.inputs.ndim != 4:
            raise DataError(
                f"its samples have shape {samples.inputs.shape[1:]}, images are (C, H, W)",
                where="meta.optimizer: data",
                hint="give a data set of images, or none for printed characters",
            )
        self.inputs = prepare(samples.inputs, samples.preprocessing)
        labels = torch.as_tensor(samples.labels)
        self.places = [found for label in range(len(samples.classes)) if len(found := torch.where(labels == label)[0])]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """What problems are drawn from."""

    images: Images
    pairs: int
    horizon: int
    """The longest unroll; others are down to a sixth of it."""
    width: int
    """The widest layer; convolutions are up to a quarter of it."""
    regression: float
    """The share of sinusoids."""
    convolutional: float
    """The share of convolutional networks among the others."""
    constant: float = 0.1
    """The share of problems at a constant rate."""
    noisy: float = 0.4
    """The share of classifications whose pixels are noisy, by up to twice their deviation, and of those with up to half their labels
    drawn anew."""

    def draw(self, random: np.random.Generator) -> Problem:
        """A problem: kind, network, data, sizes and first parameters are all drawn."""
        horizon = round(self.horizon * 6.0 ** -random.random())
        hidden = tuple(self._width(random) for _ in range(random.integers(1, 4)))
        activation = str(random.choice(sorted(_ACTIVATIONS)))
        batch = int(2 ** random.integers(4, 7))
        schedule = "constant" if random.random() < self.constant else "cosine"
        if random.random() < self.regression:
            inputs, targets, naive = self._sinusoids(random)
            network = Optimisee(inputs=(1,), hidden=hidden, activation=activation)
        else:
            inputs, targets, classes = self._pictures(random)
            naive = torch.full((self.pairs,), math.log(classes))
            norm = bool(random.random() < 0.5)
            shape = tuple(inputs.shape[2:])
            convolutions: tuple[int, ...] = ()
            if random.random() < self.convolutional:
                convolutions = tuple(max(self._width(random) // 4, 2) for _ in range(random.integers(2, 4)))
                hidden = hidden[:1] if random.random() < 0.3 else ()
            else:
                shape, inputs = (math.prod(shape),), inputs.flatten(2)
            network = Optimisee(
                inputs=shape,
                convolutions=convolutions,
                hidden=hidden,
                outputs=classes,
                activation=activation,
                norm=norm,
            )
        first = network.initial(random, self.pairs)
        return Problem(
            network=network,
            horizon=max(horizon, 1),
            batch=batch,
            first=first,
            inputs=inputs,
            targets=targets,
            naive=naive,
            schedule=schedule,
        )

    def _width(self, random: np.random.Generator) -> int:
        least = min(4, self.width)
        return round(least * (self.width / least) ** random.random())

    def _pictures(self, random: np.random.Generator) -> tuple[Tensor, Tensor, int]:
        there = len(self.images.places)
        classes = int(random.integers(min(3, there), min(20, there) + 1))
        samples = int(2 ** random.integers(6, 10))
        spoilt = 0.5 * random.random() * (random.random() < self.noisy)
        noise = 2 * random.random() * (random.random() < self.noisy)
        inputs: list[Tensor] = []
        labels: list[Tensor] = []
        for _ in range(self.pairs):
            chosen = [self.images.places[number] for number in random.permutation(there)[:classes]]
            label = random.integers(0, classes, samples)
            draws = random.random(samples)
            places = torch.stack([chosen[c][int(u * len(chosen[c]))] for c, u in zip(label, draws, strict=True)])
            images = self.images.inputs[places]
            strange = noise * random.standard_normal(images.shape, dtype=np.float32)
            inputs.append(images + float(images.std()) * torch.from_numpy(strange))
            label = np.where(random.random(samples) < spoilt, random.integers(0, classes, samples), label)
            labels.append(torch.from_numpy(label))
        return torch.stack(inputs), torch.stack(labels), classes

    def _sinusoids(self, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Sinusoids of amplitude 0.1 to 5 and any phase, as in Finn et al., 2017, each at 128 places from -5 to 5."""
        places = random.uniform(-5, 5, (self.pairs, 128, 1))
        amplitude, phase = random.uniform(0.1, 5, (self.pairs, 1, 1)), random.uniform(0, 2 * np.pi, (self.pairs, 1, 1))
        targets = torch.from_numpy((amplitude * np.sin(places + phase)).astype(np.float32))
        return torch.from_numpy(places.astype(np.float32)), targets, targets.square().mean((1, 2))


class _Group(NamedTuple):
    """The copies of a problem in the midst of it."""

    episode: int
    """Problems that came before."""
    step: int
    """Steps done of this one."""
    point: Tensor
    """Parameters (copies, N)."""
    slots: Slots
    """What the rules remember, (copies, N, …)."""
    shift: Tensor
    """Sum of the perturbations so far, shape (P, parameters of the rule)."""


@dataclass(frozen=True)
class _Copies:
    """Copies of a rule, each with its own weights."""

    nominal: str
    rate: float
    weights: tuple[Tensor, ...]
    """Of the layer from features to hidden units and of that to outputs the weights and biases, (copies, …)."""

    def __call__(self, features: Tensor, /) -> Tensor:
        first, bias, second, offset = self.weights
        hidden = torch.tanh(torch.baddbmm(bias[:, None], features, first.mT))
        return torch.baddbmm(offset[:, None], hidden, second.mT)


class Population:
    """Groups of copies, each at another problem; every call goes on with one of them."""

    def __init__(
        self,
        rule: UpdateRule,
        distribution: Distribution,
        random: Callable[[int, int], np.random.Generator],
        state: State,
        *,
        groups: int,
        unroll: int,
        sigma: float,
        estimator: Estimator,
        held_out: bool,
        device: torch.device,
    ) -> None:
        self._rule, self._distribution, self._random = rule, distribution, random
        self._count, self._unroll, self._sigma, self._estimator = groups, unroll, sigma, estimator
        self._held_out, self._device = held_out, device
        self._copies = 1 if estimator == "backprop" else 2
        self._problems: dict[tuple[int, int], Problem] = {}
        self._groups = {int(number): _group(kept, device) for number, kept in state.items()}

    def judge(self, rule: UpdateRule, distribution: Distribution, count: int) -> float:
        """The mean measure of the last tenth of whole trainings by a rule, on `count` problems and batches that are always the same."""
        weights = torch.cat([parameter.detach().reshape(-1) for parameter in rule.parameters()])
        found: list[float] = []
        with torch.random.fork_rng(), torch.no_grad():
            for number in range(count):
                torch.manual_seed(number)
                problem = distribution.draw(self._random(-1, number)).to(self._device)
                group = _begun(problem, 1, len(weights))
                before = problem.horizon * 9 // 10
                rules = weights.expand(len(group.point), -1)
                if before:
                    _, point, slots = self._unrolled(problem, group, rules, before)
                    group = group._replace(step=before, point=point, slots=slots)
                measures, *_ = self._unrolled(problem, group, rules, problem.horizon - before)
                found.append(float(measures.mean()))
        return sum(found) / len(found)

    def state(self) -> State:
        """Where all groups are."""
        return {str(number): _plain(group) for number, group in self._groups.items()}

    def loss(self, turn: int) -> Tensor:
        """The mean measure of the next truncation of one group, a scalar whose gradient is the estimate."""
        from mapsto.nn.meta.outer_gradient import precomputed

        number = turn % self._count
        group = self._groups.get(number) or self._begin(number, 0)
        problem = self._problem(number, group.episode)
        parameters = list(self._rule.parameters())
        steps = min(self._unroll, problem.horizon - group.step)
        found, gradients, group = (self._by_backprop if self._estimator == "backprop" else self._by_pairs)(
            problem, group, parameters, steps
        )
        over = group.step >= problem.horizon or not bool(group.point.isfinite().all())
        if over:
            self._problems.pop((number, group.episode), None)
        self._groups[number] = self._begin(number, group.episode + 1) if over else group
        return precomputed(parameters, [(found, gradients)], 1)

    def _problem(self, number: int, episode: int) -> Problem:
        """The problem of a group, the same whenever it is asked for."""
        if (number, episode) not in self._problems:
            drawn = self._distribution.draw(self._random(number, episode))
            self._problems[number, episode] = drawn.to(self._device)
        return self._problems[number, episode]

    def _begin(self, number: int, episode: int) -> _Group:
        size = sum(parameter.numel() for parameter in self._rule.parameters())
        return _begun(self._problem(number, episode), self._copies, size)._replace(episode=episode)

    def _by_pairs(
        self, problem: Problem, group: _Group, parameters: Sequence[Tensor], steps: int
    ) -> tuple[Tensor, list[Tensor], _Group]:
        """Evolution strategies, antithetic: persistent, or with both of a pair from the same state."""
        shift = torch.randn(group.shift.shape).to(self._device) * self._sigma
        mean = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        rules = mean + torch.cat([shift, -shift])
        with torch.no_grad():
            measures, point, slots = self._unrolled(problem, group, rules, steps)
        above, below = measures.chunk(2)
        persistent = self._estimator == "pes"
        summed = group.shift + shift if persistent else shift
        estimate = ((above - below)[:, None] * summed).mean(0) / (2 * self._sigma**2)
        if not persistent:
            point, slots = _first_half(point), Slots(*(_first_half(whole) for whole in slots))
            summed = torch.zeros_like(summed)
        gradients = [part.view_as(p) for part, p in zip(estimate.split(_sizes(parameters)), parameters, strict=True)]
        return measures.mean(), gradients, _Group(group.episode, group.step + steps, point, slots, summed)

    def _by_backprop(
        self, problem: Problem, group: _Group, parameters: Sequence[Tensor], steps: int
    ) -> tuple[Tensor, list[Tensor], _Group]:
        """The gradient through the truncation, that of the optimisees' gradients included."""
        leaves = [parameter.detach().requires_grad_() for parameter in parameters]
        with torch.enable_grad():
            rules = torch.cat([leaf.reshape(-1) for leaf in leaves]).expand(len(group.point), -1)
            measures, point, slots = self._unrolled(problem, group, rules, steps)
            mean = measures.mean()
        # A single step is measured before the rule has moved anything: its gradient is 0.
        gradients = list(torch.autograd.grad(mean, leaves, materialize_grads=True))
        slots = Slots(*(whole.detach() for whole in slots))
        return mean.detach(), gradients, _Group(group.episode, group.step + steps, point.detach(), slots, group.shift)

    def _unrolled(self, problem: Problem, group: _Group, rules: Tensor, steps: int) -> tuple[Tensor, Tensor, Slots]:
        """`steps` steps of every copy by its own rule (copies, parameters): mean measures (copies,), and where they come to."""
        rule = self._rule
        like = [rule.features.weight, rule.features.bias, rule.output.weight, rule.output.bias]
        weights = (part.unflatten(1, p.shape) for part, p in zip(rules.split(_sizes(like), 1), like, strict=True))
        copies = _Copies(rule.nominal, rule.rate, tuple(weights))
        layout = problem.network.layout
        last = problem.inputs.shape[1]
        seen = last * 3 // 4 if self._held_out else last
        point, slots = group.point, group.slots
        naive = problem.naive.repeat(len(point) // len(problem.naive))
        measures: list[Tensor] = []
        for step in range(group.step, group.step + steps):
            loss, gradient = self._gradient(problem, point, self._batch(problem, 0, seen, len(point)))
            rate = problem.rate(step)
            share = slots.trend.new_full(slots.trend.shape, rate / problem.rate(0))
            change, slots = update(copies, point, gradient, slots, step + 1, share, layout)
            point = point + rate * change
            if self._held_out:
                loss = problem.loss(point, *self._batch(problem, seen, last, len(point)))
            measures.append(problem.weight(step) * _measure(loss / naive))
        return torch.stack(measures).mean(0), point, slots

    def _gradient(self, problem: Problem, point: Tensor, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The losses (copies,) and their gradients (copies, N), which go on to the rule with `backprop`."""
        through = self._estimator == "backprop"
        if not point.requires_grad:
            point = point.detach().requires_grad_()
        with torch.enable_grad():
            loss = problem.loss(point, *batch)
            (gradient,) = torch.autograd.grad(loss.sum(), point, create_graph=through)
        return (loss, gradient) if through else (loss.detach(), gradient)

    def _batch(self, problem: Problem, first: int, last: int, count: int) -> tuple[Tensor, Tensor]:
        """A batch of each pair, the same for both of it: (copies, B, …)."""
        pairs = len(problem.inputs)
        chosen = torch.randint(first, last, (pairs, problem.batch)).to(self._device)
        rows = torch.arange(pairs, device=self._device)[:, None]
        copies = count // pairs
        return _repeated(problem.inputs[rows, chosen], copies), _repeated(problem.targets[rows, chosen], copies)


def _patches(x: Tensor) -> Tensor:
    """What a convolution of 3 × 3 with stride 2 sees at each place of (K, B, H, W, C): (K, B, H / 2, W / 2, 9 C), rounded up.

    One product a layer and network is several times as fast as `torch.nn.functional.unfold`, which works sample by sample.
    """
    height, width = ((side + 1) // 2 for side in x.shape[2:4])
    padded = nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
    shifts = [padded[:, :, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2] for i in range(3) for j in range(3)]
    return torch.stack(shifts, -1).flatten(-2)


def _begun(problem: Problem, copies: int, size: int) -> _Group:
    """Copies of a problem before its first step, by rules of `size` weights."""
    point = problem.first.repeat(copies, 1)
    count, n = point.shape
    tensors = point.new_zeros(count, len(problem.network.shapes))
    slots = Slots(point.new_zeros(count, len(DECAYS), n), torch.zeros_like(point), tensors)
    return _Group(0, 0, point, slots, point.new_zeros(len(problem.first), size))


def _measure(relative: Tensor) -> Tensor:
    """``log(ℓ + 0.01)`` of a loss relative to the naive one: halving it counts alike early and late, divergence only so much."""
    return torch.log(relative + _FLOOR).nan_to_num(_WORST, _WORST).clamp_max(_WORST)


def _repeated(tensor: Tensor, copies: int) -> Tensor:
    return torch.cat([tensor] * copies)


def _first_half(tensor: Tensor) -> Tensor:
    """The first of each pair, for both."""
    return _repeated(tensor[: len(tensor) // 2], 2)


def _sizes(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.numel() for tensor in tensors]


def _plain(group: _Group) -> State:
    kept = {"episode": group.episode, "step": group.step, "point": group.point, "shift": group.shift}
    return kept | group.slots._asdict()


def _group(state: State, device: torch.device) -> _Group:
    point, shift = (state[name].to(device) for name in ("point", "shift"))
    slots = Slots(*(state[name].to(device) for name in Slots._fields))
    return _Group(int(state["episode"]), int(state["step"]), point, slots, shift)
