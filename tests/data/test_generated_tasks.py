"""Tasks that are made: regression, and those without labels or beyond the data's own classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mapsto import discovery
from mapsto.data.augment.affine import Affine
from mapsto.data.augment.cutmix import Cutmix
from mapsto.data.augment.feature_dropout import FeatureDropout
from mapsto.data.augment.flip import Flip
from mapsto.data.augment.noise import Noise
from mapsto.data.sets.clustered import Clustered
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.linear_dynamics import LinearDynamics
from mapsto.data.sets.sinusoids import Sinusoids
from mapsto.data.sets.task_augmented import TaskAugmented
from mapsto.data.sets.umtra import Umtra
from mapsto.data.tasks.clusters import ClusteredEpisodes, partitions, principal_components
from mapsto.data.tasks.variants import variants
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Dataset, Episode, Preprocessing, Samples, Tasks

DIGITS = Digits(size=12)


class Shuffled(Dataset):
    """Digits whose labels are in another order."""

    def fingerprint(self) -> str:
        return "shuffled digits"

    def open(self) -> Samples:
        samples = DIGITS.open()
        return dataclasses.replace(samples, labels=np.random.default_rng(0).permutation(samples.labels))


class Rows(Dataset):
    """Rows of numbers in four groups, without labels to speak of."""

    def fingerprint(self) -> str:
        return "rows"

    def open(self) -> Samples:
        random = np.random.default_rng(0)
        rows = np.repeat(np.eye(4, 6) * 10, 20, 0) + random.normal(size=(80, 6))
        return Samples(
            inputs=rows.astype(np.float32),
            labels=np.zeros(80, np.int64),
            classes=("unknown",),
            preprocessing=Preprocessing(kind="none"),
        )


def same(a: Episode, b: Episode) -> bool:
    return (
        np.array_equal(a.support, b.support)
        and np.array_equal(a.query, b.query)
        and np.array_equal(a.query_labels, b.query_labels)
    )


MADE: list[Tasks] = [
    Sinusoids(shots=5, queries=4),
    LinearDynamics(size=3, shots=6, queries=4),
    Umtra(data=DIGITS, ways=4, shots=2, queries=3),
    TaskAugmented(data=DIGITS, ways=12, shots=2, queries=3, inverted=0.5, mixed=0.5, drop=0.1),
    Clustered(data=DIGITS, ways=4, shots=2, queries=3, clusters=12, partitions=2, dimensions=8),
]


@pytest.mark.parametrize("tasks", MADE, ids=lambda tasks: type(tasks).__name__)
def test_a_task_is_decided_by_seed_and_number(tasks: Tasks) -> None:
    first, again = tasks.open(), tasks.open()
    assert same(first[3], again[3])
    assert not same(first[3], first[4])
    assert not same(first[3], dataclasses.replace(tasks, seed=1).open()[3])  # type: ignore[type-var]
    assert len(first[0].query_indices) == len(first[0].query_labels) == max(first.ways, 1) * first.queries
    assert tasks.fingerprint() == dataclasses.replace(tasks).fingerprint()  # type: ignore[type-var]
    assert tasks.fingerprint() != dataclasses.replace(tasks, seed=1).fingerprint()  # type: ignore[type-var]
    with pytest.raises(DomainError, match="from 0"):
        first[-1]


# ---------------------------------------------------------------------------------------------------------- regression


def test_sinusoids_are_as_published() -> None:
    episodes = Sinusoids(shots=10, queries=50).open()
    found: list[tuple[float, float]] = []
    for number in range(200):
        task = episodes[number]
        x = np.concatenate([task.support, task.query])[:, 0].astype(np.float64)
        y = np.concatenate([task.support_labels, task.query_labels])[:, 0]
        assert (task.classes, task.outputs, y.dtype) == ((), 1, np.float32)
        assert np.abs(x).max() <= 5
        parts, rest, *_ = np.linalg.lstsq(np.stack([np.sin(x), np.cos(x)], 1), y, rcond=None)
        assert rest.sum() < 1e-8
        found.append((float(np.hypot(*parts)), float(np.arctan2(parts[1], parts[0]))))
    amplitudes, phases = np.array(found).T
    assert 0.1 <= amplitudes.min() < 0.4
    assert 4.7 < amplitudes.max() <= 5.0001
    assert -1e-4 <= phases.min() < 0.2
    assert 2.9 < phases.max() <= np.pi + 1e-4
    assert episodes.ways == 0
    assert episodes.samples.preprocessing.kind == "none"


def test_noise_is_of_the_support_only() -> None:
    quiet, loud = (Sinusoids(shots=5, queries=5, noise=noise).open()[0] for noise in (0.0, 1.0))
    assert np.array_equal(quiet.query_labels, loud.query_labels)
    assert not np.array_equal(quiet.support_labels, loud.support_labels)


def test_linear_systems_are_stable_and_linear() -> None:
    episodes = LinearDynamics(size=3, shots=8, queries=5, noise=0, radius=(0.5, 0.9)).open()
    for number in range(20):
        task = episodes[number]
        matrix, *_ = np.linalg.lstsq(task.support.astype(np.float64), task.support_labels, rcond=None)
        assert np.allclose(task.query @ matrix, task.query_labels, atol=1e-4)
        assert 0.499 <= np.abs(np.linalg.eigvals(matrix)).max() <= 0.901


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Sinusoids(amplitude=(2.0, 1.0)), "amplitude"),
        (lambda: LinearDynamics(radius=(0.5, 1.0)), "radius"),
        (lambda: Umtra(data=DIGITS, ways=1), "ways"),
        (lambda: TaskAugmented(data=DIGITS, turns=3), "turns"),  # type: ignore[arg-type]
    ],
)
def test_wrong_fields_are_refused(make: object, field: str) -> None:
    assert callable(make)
    with pytest.raises(SpecError, match=field):
        make()


# ---------------------------------------------------------------------------------------------------------- no labels


@pytest.mark.parametrize(
    "make",
    [
        lambda data: Umtra(data=data, ways=4, queries=2),
        lambda data: Clustered(data=data, ways=4, queries=2, clusters=12, partitions=2, dimensions=8),
    ],
    ids=["umtra", "clustered"],
)
def test_labels_are_not_read(make: object) -> None:
    assert callable(make)
    own, shuffled = make(DIGITS).open(), make(Shuffled()).open()
    assert all(same(own[number], shuffled[number]) for number in range(5))


def test_umtra_queries_are_copies_of_its_support() -> None:
    data = DIGITS.open()
    task = Umtra(data=DIGITS, ways=5, shots=2, queries=3, augment=(), drop=0).open()[0]
    support, query = task.support.reshape(5, 2, -1), task.query.reshape(5, 3, -1)
    assert (support[:, :1] == support).all()
    assert (support[:, :1] == query).all()
    assert all((data.inputs.reshape(len(data), -1) == image).all(1).any() for image in support[:, 0])
    changed = Umtra(data=DIGITS, ways=5, shots=2, queries=3).open()[0]
    first = changed.support.reshape(5, 2, -1)
    assert np.array_equal(first[:, 0], support[:, 0])
    assert (first[:, 0] != first[:, 1]).any(1).all()
    assert changed.query.dtype == np.uint8


def test_umtra_works_on_rows() -> None:
    task = Umtra(data=Rows(), ways=3, augment=(Noise(std=0.02),)).open()[0]
    assert task.query.dtype == np.float32
    assert 0 < np.abs(task.query - task.support).max() < 1


def test_variants_blank_pixels_and_keep_what_is_blank() -> None:
    samples = DIGITS.open()
    few = np.arange(8)
    dropped = variants(samples, few, (), 0.5, np.random.default_rng(0))
    blanked = (dropped == 0)[samples.inputs[few] > 0]
    assert 0.4 < blanked.mean() < 0.6
    assert np.array_equal(dropped[dropped > 0], samples.inputs[few][dropped > 0])
    still = variants(samples, few, (), 0.0, np.random.default_rng(0))
    assert np.array_equal(still, samples.inputs[few])


def test_clusters_find_the_groups_that_are_there() -> None:
    tasks = Clustered(data=Rows(), ways=4, shots=5, queries=5, clusters=4, partitions=1, embedding="raw").open()
    task = tasks[0]
    groups = task.support_indices.reshape(4, 5) // 20
    assert (groups == groups[:, :1]).all()
    assert sorted(groups[:, 0].tolist()) == [0, 1, 2, 3]
    assert (task.query_indices.reshape(4, 5) // 20 == groups[:, :1]).all()
    assert not set(task.support_indices.tolist()) & set(task.query_indices.tolist())


def test_partitions_differ_and_are_kept() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    first = partitions(rows, clusters=10, count=3, seed=0)
    assert first.shape == (3, 200)
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(first, partitions(rows, clusters=10, count=3, seed=0))


def test_principal_components_are_white() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(500, 3)) @ random.normal(size=(3, 7))
    found = principal_components(rows, 10)
    assert found.shape == (500, 3)
    assert np.allclose(np.cov(found.T, bias=True), np.eye(3), atol=1e-3)


def test_too_few_samples_or_members_are_named() -> None:
    with pytest.raises(DataError, match="100 clusters"):
        Clustered(data=Rows(), clusters=100).open()[0]
    with pytest.raises(DataError, match="the best partition has"):
        Clustered(data=Rows(), clusters=40, ways=5, shots=5, queries=15).open()[0]
    with pytest.raises(DataError, match="as many samples"):
        Umtra(data=Rows(), ways=81).open()
    with pytest.raises(DataError, match="square images"):
        TaskAugmented(data=Rows()).open()
    with pytest.raises(DomainError, match="flip is for images, but the samples are rows"):
        TaskAugmented(data=Rows(), turns=1, ways=2, queries=2, augment=(Flip(),)).open()
    with pytest.raises(DomainError, match="affine is for images"):
        Umtra(data=Rows()).open()
    with pytest.raises(SpecError, match="cutmix mixes samples, but each copy is of one image"):
        Umtra(data=DIGITS, augment=(Affine(degrees=5), Cutmix()))
    with pytest.raises(DataError, match="41 ways"):
        TaskAugmented(data=DIGITS, ways=41, queries=2).open()


def test_clusters_are_found_when_a_task_is_asked_for() -> None:
    calls: list[int] = []

    def assign() -> np.ndarray:
        calls.append(1)
        return np.zeros((1, 80), np.int32)

    episodes = ClusteredEpisodes(Rows().open(), ways=2, shots=1, queries=1, seed=0, assign=assign)
    assert not calls
    with pytest.raises(DataError, match="best partition has 1"):
        episodes[0]


# -------------------------------------------------------------------------------------------------- augmented tasks


def test_a_turned_class_is_a_new_one() -> None:
    tasks = TaskAugmented(data=DIGITS, ways=40, shots=1, queries=1)
    task, samples = tasks.open()[0], DIGITS.open()
    assert sorted(task.classes) == list(range(40))
    flat = {image.tobytes(): label for image, label in zip(samples.inputs, samples.labels.tolist(), strict=True)}
    for image, kind in zip(task.support, task.classes, strict=True):
        turn, label = divmod(kind, 10)
        assert flat[np.ascontiguousarray(np.rot90(image, -turn, (-2, -1))).tobytes()] == label


def test_no_two_classes_of_a_distinct_task_are_turns_of_one() -> None:
    episodes = TaskAugmented(data=DIGITS, ways=10, shots=1, queries=1, distinct=True).open()
    tasks = [episodes[number].classes for number in range(60)]
    assert all(sorted(kind % 10 for kind in task) == list(range(10)) for task in tasks)
    assert {kind for task in tasks for kind in task} == set(range(40))
    with pytest.raises(DataError, match="11 ways need as many classes"):
        TaskAugmented(data=DIGITS, ways=11, queries=2, distinct=True).open()


def test_inversion_is_of_the_whole_task() -> None:
    episodes = TaskAugmented(data=DIGITS, turns=1, inverted=0.5, queries=2).open()
    corners = np.array([episodes[number].samples.inputs[:, 0, 0, 0] for number in range(40)])
    assert set(np.unique(corners).tolist()) == {0, 255}
    assert (corners == corners[:, :1]).all()
    assert 0.25 < (corners[:, 0] == 255).mean() < 0.75


def test_a_mixed_class_lies_between_two() -> None:
    plain, mixed = (TaskAugmented(data=DIGITS, turns=1, queries=2, mixed=share).open() for share in (0.0, 1.0))
    assert mixed[0].samples.inputs.dtype == np.uint8
    levels = [episodes[0].samples.inputs.astype(float).std() for episodes in (plain, mixed)]
    assert levels[1] < levels[0]


IMAGE_OPERATIONS = [
    name
    for name in discovery.entries("augment")
    if "images" in discovery.find("augment", name).on and not discovery.find("augment", name).mixes
]


@pytest.mark.parametrize("name", IMAGE_OPERATIONS)
def test_every_operation_on_images_makes_tasks(name: str) -> None:
    """Bytes stay bytes of their shape, the same task comes again, and support and queries are changed by draws of their own."""
    cls = discovery.find("augment", name)
    operation = cls(**cls.contract)
    for tasks in (
        TaskAugmented(data=DIGITS, ways=2, queries=2, turns=1, augment=(operation,)),
        TaskAugmented(data=DIGITS, ways=2, queries=2, turns=1, augment_class=(operation,), augment_task=(operation,)),
        Umtra(data=DIGITS, ways=2, queries=2, augment=(operation,)),
    ):
        task = tasks.open()[0]
        assert (task.query.shape, task.query.dtype) == ((4, 1, 12, 12), np.uint8)
        assert same(task, tasks.open()[0])


def test_classes_and_tasks_are_changed_as_a_whole() -> None:
    """Half of the classes, or of the tasks, are mirrored, and never a part of one."""
    plain = TaskAugmented(data=DIGITS, ways=4, queries=2, turns=1)

    def mirrored(**fields: tuple[Flip, ...]) -> list[list[bool]]:
        """Of each class of each task, whether it is mirrored."""
        made, known = dataclasses.replace(plain, **fields).open(), plain.open()
        found: list[list[bool]] = []
        for number in range(8):
            one, base = (
                np.concatenate([task.support[:, None], task.query.reshape(4, 2, 1, 12, 12)], 1)
                for task in (made[number], known[number])
            )
            states = [
                [np.array_equal(a, b[..., ::-1]) for a, b in zip(*each, strict=True)]
                for each in zip(one, base, strict=True)
            ]
            assert all(len(set(each)) == 1 for each in states)
            found.append([each[0] for each in states])
        return found

    by_class = mirrored(augment_class=(Flip(),))
    assert any(len(set(each)) == 2 for each in by_class)
    by_task = mirrored(augment_task=(Flip(),))
    assert all(len(set(each)) == 1 for each in by_task)
    assert {each[0] for each in by_task} == {True, False}


def test_rows_make_tasks_too() -> None:
    rows = Rows().open()
    few = dataclasses.replace(rows, labels=np.repeat(np.arange(4), 20), classes=tuple("abcd"))

    class Labelled(Rows):
        def open(self) -> Samples:
            return few

    tasks = TaskAugmented(data=Labelled(), ways=3, queries=2, turns=1, augment=(FeatureDropout(probability=0.5),))
    task = tasks.open()[0]
    assert all(set(task.query[:, place].tolist()) <= set(few.inputs[:, place].tolist()) for place in range(6))


@pytest.mark.parametrize("field", ["augment", "augment_class", "augment_task"])
def test_no_list_of_a_task_mixes_samples(field: str) -> None:
    with pytest.raises(
        SpecError, match=f"cutmix mixes samples, but each image is of one class.*leave it out of {field}"
    ):
        TaskAugmented(data=DIGITS, **{field: (Cutmix(),)})  # type: ignore[arg-type]
