"""Every loss of distillation against one written out by hand, in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mapsto.errors import DomainError
from mapsto.nn.distill import divergences, losses
from mapsto.nn.distill.projectors import ContrastMemory, LinearProjections, ReviewFusions

SIZES = st.tuples(st.integers(2, 7), st.integers(2, 6), st.integers(0, 2**31))


def drawn(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def softmax(row: Tensor, temperature: float) -> list[float]:
    powers = [math.exp(float(value) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def pearson(x: list[float], y: list[float]) -> float:
    mx, my = sum(x) / len(x), sum(y) / len(y)
    cov = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return cov / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def huber(x: float, y: float) -> float:
    return 0.5 * (x - y) ** 2 if abs(x - y) < 1 else abs(x - y) - 0.5


@settings(max_examples=20, deadline=None)
@given(SIZES, st.floats(0.5, 8))
def test_decoupled(size: tuple[int, int, int], temperature: float) -> None:
    n, classes, seed = size
    student, teacher = drawn((n, classes), (n, classes), seed=seed)
    labels = torch.arange(n) % classes
    expected = 0.0
    for s, t, label in zip(student, teacher, labels.tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        target = divergence([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        rest = [c for c in range(classes) if c != label]
        others = divergence([p[c] / (1 - p[label]) for c in rest], [q[c] / (1 - q[label]) for c in rest])
        expected += (1.5 * target + 8 * others) * temperature**2 / n
    found = losses.decoupled(student, teacher, labels, temperature=temperature, target=1.5, others=8)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_decoupled_with_the_teachers_own_weights_is_plain_distillation() -> None:
    student, teacher = drawn((1, 5), (1, 5))
    sure = float(functional.softmax(teacher, 1)[0, 2])
    parts = losses.decoupled(student, teacher, torch.tensor([2]), temperature=1, target=1, others=1 - sure)
    torch.testing.assert_close(parts, divergences.kl(student, teacher))


@settings(max_examples=20, deadline=None)
@given(SIZES, st.floats(0.5, 8))
def test_correlations(size: tuple[int, int, int], temperature: float) -> None:
    n, classes, seed = size
    student, teacher = drawn((n, classes), (n, classes), seed=seed)
    ours = [softmax(row, temperature) for row in student]
    theirs = [softmax(row, temperature) for row in teacher]
    between = sum(1 - pearson(a, b) for a, b in zip(ours, theirs, strict=True)) / n
    columns = zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    within = sum(1 - pearson(list(a), list(b)) for a, b in columns) / classes
    found = losses.correlations(student, teacher, temperature=temperature, inter=2, intra=3)
    assert float(found) == pytest.approx((2 * between + 3 * within) * temperature**2, rel=1e-7, abs=1e-9)
    assert float(divergences.correlation(student, teacher, temperature=temperature)) == pytest.approx(
        between * temperature**2, rel=1e-7, abs=1e-9
    )


def test_attention() -> None:
    ours, theirs = drawn((3, 4, 2, 3), (3, 6, 2, 3))
    expected = 0.0
    for own, other in zip(ours, theirs, strict=True):
        maps: list[list[float]] = []
        for layer in (own, other):
            squares = [sum(float(c[y, x]) ** 2 for c in layer) / len(layer) for y in range(2) for x in range(3)]
            length = math.sqrt(sum(value**2 for value in squares))
            maps.append([value / length for value in squares])
        expected += sum((a - b) ** 2 for a, b in zip(*maps, strict=True)) / 18
    assert float(losses.attention(ours, theirs)) == pytest.approx(expected)
    with pytest.raises(DomainError, match="a layer of the teacher has shape"):
        losses.attention(ours, theirs.flatten(1))


def test_similarity() -> None:
    ours, theirs = drawn((4, 3, 2, 2), (4, 7))
    grams: list[list[list[float]]] = []
    for layer in (ours.flatten(1), theirs):
        rows = [[float((a * b).sum()) for b in layer] for a in layer]
        grams.append([[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows])
    expected = sum((a - b) ** 2 for x, y in zip(*grams, strict=True) for a, b in zip(x, y, strict=True)) / 16
    assert float(losses.similarity(ours, theirs)) == pytest.approx(expected)


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**31))
def test_relations(n: int, seed: int) -> None:
    ours, theirs = drawn((n, 3), (n, 5), seed=seed)

    def distances(x: Tensor) -> list[float]:
        found = [math.dist(x[i].tolist(), x[j].tolist()) for i in range(n) for j in range(i + 1, n)]
        return [value / (sum(found) / len(found)) for value in found]

    def cosines(x: Tensor) -> list[float]:
        found: list[float] = []
        for j in range(n):
            for i in range(n):
                for k in range(n):
                    a, b = x[i] - x[j], x[k] - x[j]
                    length = float(a.norm() * b.norm())
                    found.append(float(a @ b) / length if length else 0.0)
        return found

    for loss, relation in ((losses.distances, distances), (losses.angles, cosines)):
        pairs = list(zip(relation(ours), relation(theirs), strict=True))
        expected = sum(huber(a, b) for a, b in pairs) / len(pairs)
        assert float(loss(ours, theirs)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        moved = theirs @ torch.linalg.qr(drawn((5, 5))[0])[0] * 3 + 1
        assert float(loss(moved, theirs)) == pytest.approx(0, abs=1e-9), "rotation, scale and offset do not matter"


def test_hints_and_hierarchical() -> None:
    ours, theirs = drawn((2, 3, 4, 4), (2, 3, 8, 8))
    smaller = theirs.view(2, 3, 4, 2, 4, 2).mean((3, 5))
    assert float(losses.hint(ours, theirs)) == pytest.approx(float((ours - smaller).square().mean()))
    half = [layer.view(2, 3, 2, 2, 2, 2).mean((3, 5)) for layer in (ours, smaller)]
    whole = [layer.mean((2, 3)) for layer in (ours, smaller)]
    terms = [float((a - b).square().mean()) for a, b in ((ours, smaller), half, whole)]
    expected = (terms[0] + terms[1] / 2 + terms[2] / 4) / 1.75
    assert float(losses.hierarchical(ours, theirs)) == pytest.approx(expected)
    with pytest.raises(DomainError, match="match maps with maps"):
        losses.hint(ours, theirs.flatten(1))


def test_contrast() -> None:
    positive, negative = (values.exp() for values in drawn((3,), (3, 4)))
    allowed = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 1, 1]]).bool()
    expected = 0.0
    for i in range(3):
        noise = int(allowed[i].sum()) / 50
        expected -= math.log(float(positive[i]) / (float(positive[i]) + noise + 1e-7)) / 3
        for k in range(4):
            if allowed[i, k]:
                expected -= math.log(noise / (float(negative[i, k]) + noise + 1e-7)) / 3
    assert float(losses.contrast(positive, negative, allowed, samples=50)) == pytest.approx(expected)
    none = torch.zeros_like(allowed)
    assert float(losses.contrast(positive, negative, none, samples=50)) == pytest.approx(0, abs=1e-5)


def test_the_memory_of_contrast() -> None:
    memory = ContrastMemory(4, 6, 8, torch.arange(10) % 2).double()
    (ours,), (theirs,) = memory(*[[layer] for layer in drawn((3, 4), (3, 6))])
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(3, dtype=torch.float64))
    places, others = torch.tensor([1, 4, 7]), torch.tensor([0, 2, 9, 5])
    positive, negative = memory.ratios(ours, 1, places, others, 0.5)
    raw = (ours @ memory.teachers.T / 0.5).exp()
    together = torch.cat([raw[range(3), places], raw[:, others].flatten()])
    torch.testing.assert_close(positive, raw[range(3), places] / (10 * together.mean()))
    torch.testing.assert_close(negative, raw[:, others] / (10 * together.mean()))
    before = memory.students.clone()
    memory.remember(ours, theirs, places, 0.25)
    torch.testing.assert_close(
        memory.students[places], functional.normalize(0.25 * before[places] + 0.75 * ours.detach(), dim=1)
    )
    torch.testing.assert_close(memory.students[others], before[others])
    again, _ = memory.ratios(2 * ours, 1, places, others, 0.5)
    assert float(memory.scales[1]) == pytest.approx(together.mean().item()), "Z stays as the first step set it"
    assert again.requires_grad
    assert "labels" not in memory.state_dict()


def test_review_fuses_from_the_deepest_up() -> None:
    ours, theirs = drawn((2, 3, 8, 8), (2, 5, 4, 4)), drawn((2, 7, 8, 8), (2, 9, 4, 4))
    review = ReviewFusions(ours, theirs, width=4).double().eval()
    (shallow, deep), _ = review(ours, theirs)
    assert (shallow.shape, deep.shape) == (theirs[0].shape, theirs[1].shape)
    first, last = review.fusions[0], review.fusions[1]
    mixed_deep = last.own(ours[1])  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(deep, last.out(mixed_deep))  # pyright: ignore[reportCallIssue]
    own, up = first.own(ours[0]), mixed_deep.repeat_interleave(2, 2).repeat_interleave(2, 3)  # pyright: ignore[reportCallIssue]
    shares = first.shares(torch.cat([own, up], 1))  # pyright: ignore[reportCallIssue]
    mixed = own * shares[:, :1] + up * shares[:, 1:]
    torch.testing.assert_close(shallow, first.out(mixed))  # pyright: ignore[reportCallIssue]
    with pytest.raises(DomainError, match="review needs maps"):
        ReviewFusions([ours[0].flatten(1)], [theirs[0]], width=4)


def test_projections_map_channels_at_every_place() -> None:
    ours, theirs = drawn((2, 3, 4, 4), (2, 5)), drawn((2, 6, 8, 8), (2, 7))
    projections = LinearProjections(ours, theirs).double().eval()
    (maps, vectors), same = projections(ours, theirs)
    assert (maps.shape, vectors.shape) == ((2, 6, 4, 4), (2, 7))
    assert same is theirs
    weight = projections.get_parameter("maps.0.0.weight")[:, :, 0, 0]
    torch.testing.assert_close(maps[1, :, 2, 3], weight @ ours[0][1, :, 2, 3] / math.sqrt(1 + 1e-5))
    with pytest.raises(DomainError, match="vectors"):
        LinearProjections([ours[0]], [theirs[1]])


# --------------------------------------------------------------------------------------------------------------- differences


@settings(max_examples=20, deadline=None)
@given(SIZES, st.floats(0.5, 8))
def test_answers(size: tuple[int, int, int], temperature: float) -> None:
    n, classes, seed = size
    student, teacher = drawn((n, classes), (n, classes), seed=seed)
    kl = js = 0.0
    for s, t in zip(student, teacher, strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        mean = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        kl += divergence(p, q) * temperature**2 / n
        js += (divergence(p, mean) + divergence(q, mean)) / 2 * temperature**2 / n
    assert float(divergences.kl(student, teacher, temperature=temperature)) == pytest.approx(kl, rel=1e-9, abs=1e-12)
    assert float(divergences.js(student, teacher, temperature=temperature)) == pytest.approx(js, rel=1e-9, abs=1e-12)
    assert 0 <= js <= temperature**2 * math.log(2)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), st.integers(1, 5), st.integers(0, 2**31))
def test_sets_of_vectors(n: int, size: int, seed: int) -> None:
    ours, theirs = drawn((n, size), (n, size), seed=seed)
    width = sum(math.dist(a.tolist(), b.tolist()) ** 2 for a in theirs for b in theirs) / n**2

    def kernel(x: Tensor, y: Tensor) -> float:
        return sum(math.exp(-(math.dist(a.tolist(), b.tolist()) ** 2) / width) for a in x for b in y) / n**2

    expected = kernel(ours, ours) + kernel(theirs, theirs) - 2 * kernel(ours, theirs)
    assert float(divergences.mmd(ours, theirs)) == pytest.approx(expected, abs=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 9), st.integers(1, 12), st.integers(0, 2**31))
def test_alignment(n: int, size: int, seed: int) -> None:
    ours, theirs = drawn((n, 3), (n, size), seed=seed)
    x, y = (layer - layer.mean(0) for layer in (ours, theirs))
    expected = 1 - (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    torch.testing.assert_close(divergences.cka(ours, theirs), expected)
    turned = theirs @ torch.linalg.qr(drawn((size, size))[0])[0] * 0.3 + 2
    assert float(divergences.cka(turned, theirs)) == pytest.approx(0, abs=1e-9)
    grams = [layer @ layer.T * (1 - torch.eye(n, dtype=torch.float64)) for layer in (ours, theirs)]
    one = torch.ones(n, dtype=torch.float64)
    k, other = grams
    by_hand = (k @ other).trace() + (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
    by_hand = (by_hand - 2 * (one @ k @ other @ one) / (n - 2)) / (n * (n - 3))
    full = [(layer @ layer.T)[None] for layer in (ours, theirs)]
    torch.testing.assert_close(divergences.hsic(*full)[0, 0], by_hand)


def test_unbiased_alignment_of_unrelated_wide_layers_is_near_nothing() -> None:
    ours, theirs = drawn((32, 2000), (32, 2000))
    assert 1 - float(divergences.cka(ours, theirs)) > 0.9, "biased: more numbers than samples"
    grams = [(layer @ layer.T)[None] for layer in (ours - ours.mean(0), theirs - theirs.mean(0))]
    cross, own, other = (
        divergences.hsic(a, b)[0, 0] for a, b in ((grams[0], grams[1]), (grams[0],) * 2, (grams[1],) * 2)
    )
    assert abs(float(cross / (own * other).sqrt())) < 0.2
    with pytest.raises(DomainError, match="3 samples are too few"):
        divergences.hsic(torch.zeros(1, 3, 3), torch.zeros(1, 3, 3))


@pytest.mark.parametrize("name", divergences.DIFFERENCES)
def test_differences_are_differentiable_and_vanish_where_both_agree(name: str) -> None:
    student, teacher = drawn((5, 4), (5, 4))
    call: Callable[..., Tensor] = divergences.DIFFERENCES[name]
    assert float(divergences.difference(name, teacher, teacher)) == pytest.approx(0, abs=1e-9)
    assert float(call(student, teacher)) > 0

    def loss(value: Tensor) -> Tensor:
        return call(value, teacher, temperature=2.0)

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(),))


def test_unknown_differences_name_the_nearest() -> None:
    with pytest.raises(DomainError, match="unknown difference 'euclid'"):
        divergences.difference("euclid", *drawn((2, 2), (2, 2)))
