"""The data sets, on what is built in and on small files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mapsto.data.checks import require_classes, require_finite, require_in_range, require_some
from mapsto.data.glyphs import render
from mapsto.data.glyphs.ink import lightened
from mapsto.data.io.cache import cached_array
from mapsto.data.io.cifar import held_out, read_records
from mapsto.data.sets.arrays import Arrays
from mapsto.data.sets.cifar10 import Cifar10
from mapsto.data.sets.cifar100 import Cifar100
from mapsto.data.sets.cifar_fs import CifarFs
from mapsto.data.sets.class_split import ClassSplit
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.glyphs import Glyphs
from mapsto.data.sets.images import Images
from mapsto.data.sets.omniglot import Omniglot
from mapsto.data.sets.subset import Subset
from mapsto.data.sets.table import Table
from mapsto.data.stratify import first_of_each_class, share_of_each_class
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Preprocessing, Samples


def samples_of(labels: list[int], classes: int) -> Samples:
    count = len(labels)
    return Samples(
        inputs=np.arange(count, dtype=np.float32)[:, None],
        labels=np.array(labels, np.int64),
        classes=tuple(f"c{i}" for i in range(classes)),
        preprocessing=Preprocessing(kind="none"),
    )


def saved(path: Path, labels: list[int], classes: int) -> Arrays:
    """The same as `samples_of`, in a file."""
    samples = samples_of(labels, classes)
    np.savez(path, inputs=samples.inputs, labels=samples.labels)
    return Arrays(file=str(path), classes=samples.classes)


# -------------------------------------------------------------------------------------------------------------- glyphs


def test_glyphs_are_drawn_once_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Glyphs(split="validation", characters=5, per_class=3, seed=11)
    first = spec.open()
    assert (first.inputs.shape, first.inputs.dtype) == ((15, 1, 28, 28), np.uint8)
    assert first.labels.tolist() == sorted([0, 1, 2, 3, 4] * 3)
    assert first.inputs.max() > 200
    monkeypatch.setattr(render, "render", None)
    again = spec.open()
    assert np.array_equal(first.inputs, again.inputs)
    assert first.classes == again.classes
    assert first.preprocessing.ink == "light"


def test_splits_of_glyphs_share_no_class() -> None:
    names = [Glyphs(split=split, per_class=1, distortion=0, size=8).open().classes for split in ("validation", "test")]
    assert not set(names[0]) & set(names[1])


def test_more_glyphs_than_there_are_is_refused() -> None:
    with pytest.raises(DomainError, match="characters"):
        Glyphs(split="validation", characters=100_000).open()


def test_a_damaged_cache_is_made_again(cache: Path) -> None:
    made = []

    def make() -> np.ndarray:
        made.append(1)
        return np.arange(1000)

    assert cached_array("test", "damaged", make).sum() == 499500
    path = cache / "test" / "damaged.npy"
    path.write_bytes(path.read_bytes()[:200])
    again = cached_array("test", "damaged", make)
    assert again.sum() == 499500
    again[:] = 0
    assert cached_array("test", "damaged", make).sum() == 499500
    assert len(made) == 2
    assert [p.name for p in path.parent.iterdir()] == ["damaged.npy"]


# -------------------------------------------------------------------------------------------------------------- digits


def test_digits_split_is_stratified_and_disjoint() -> None:
    whole, train, test = (Digits(split=split).open() for split in ("all", "train", "test"))
    assert (len(whole), len(train), len(test)) == (1797, 1348, 449)
    assert len({image.tobytes() for image in [*train.inputs, *test.inputs]}) == len({i.tobytes() for i in whole.inputs})
    assert np.bincount(test.labels).min() >= 43


def test_digits_are_whole_and_light_on_dark() -> None:
    images = Digits(size=32).open().inputs
    assert images.shape == (1797, 1, 32, 32)
    assert images[:, :, [0, -1]].max() == 0
    assert images.max() == 255


# ---------------------------------------------------------------------------------------------------------- selections


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    few=st.integers(0, 5),
    more=st.integers(0, 5),
    seed=st.integers(0, 9),
)
def test_a_smaller_choice_lies_in_a_larger_one(labels: list[int], few: int, more: int, seed: int) -> None:
    array = np.array(labels)
    small = first_of_each_class(array, few, seed)
    large = first_of_each_class(array, few + more, seed)
    assert (large | ~small).all()
    for label in set(labels):
        assert small[array == label].sum() == min(few, labels.count(label))


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=60), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_a_stratified_choice_has_the_shares_of_the_whole(labels: list[int], share: float, seed: int) -> None:
    total = round(share * len(labels))
    chosen = share_of_each_class(np.array(labels), total, seed)
    assert chosen.sum() == total
    for label in set(labels):
        assert abs(chosen[np.array(labels) == label].sum() - labels.count(label) * total / len(labels)) < 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=6), per_class=st.integers(1, 6), seed=st.integers(0, 9))
def test_chosen_and_rest_are_disjoint_and_whole(tmp_path: Path, counts: list[int], per_class: int, seed: int) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    source = saved(tmp_path / "a.npz", labels, len(counts))
    chosen = Subset(data=source, per_class=per_class, seed=seed)
    if min(counts) < per_class:
        with pytest.raises(DataError, match="fewer than"):
            chosen.open()
        return
    first = chosen.open()
    assert np.bincount(first.labels).tolist() == [per_class] * len(counts)
    rest = Subset(data=source, per_class=per_class, seed=seed, part="rest")
    if set(counts) == {per_class}:
        with pytest.raises(DataError, match="not one sample"):
            rest.open()
        return
    both = sorted([*first.inputs.ravel(), *rest.open().inputs.ravel()])
    assert both == list(range(len(labels)))


def test_a_subset_renumbers_its_classes_in_the_order_given() -> None:
    samples = Subset(data=Digits(), classes=(9, "2"), per_class=4).open()
    assert samples.classes == ("9", "2")
    whole = Digits().open()
    nines = {image.tobytes() for image in whole.inputs[whole.labels == 9]}
    assert all(image.tobytes() in nines for image in samples.inputs[samples.labels == 0])


def test_a_subset_refuses_what_cannot_be() -> None:
    with pytest.raises(SpecError, match="per_class"):
        Subset(data=Digits(), part="rest")
    with pytest.raises(SpecError, match="no class 'seven'"):
        Subset(data=Digits(), classes=("seven",)).open()
    with pytest.raises(SpecError, match="twice"):
        Subset(data=Digits(), classes=("7", "7")).open()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(classes=st.integers(1, 12), first=st.integers(0, 10), second=st.integers(0, 10), seed=st.integers(0, 9))
def test_parts_of_classes_are_disjoint_and_whole(
    tmp_path: Path, classes: int, first: int, second: int, seed: int
) -> None:
    second = min(second, 10 - first)
    fractions = (first / 10, second / 10, (10 - first - second) / 10)
    source = saved(tmp_path / "a.npz", [*range(classes), *range(classes)], classes)
    names: list[str] = []
    inputs: list[float] = []
    empty: list[str] = []
    for part in ("train", "validation", "test"):
        spec = ClassSplit(data=source, part=part, fractions=fractions, seed=seed)
        try:
            samples = spec.open()
        except DataError as error:
            empty.append(str(error))
            continue
        names += samples.classes
        inputs += samples.inputs.ravel().tolist()
        assert [samples.classes[label] for label in samples.labels] == [
            f"c{int(value) % classes}" for value in samples.inputs.ravel()
        ]
    assert all("no class is left" in message for message in empty)
    assert sorted(names) == sorted(f"c{i}" for i in range(classes))
    assert sorted(inputs) == list(range(2 * classes))


def test_fractions_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(SpecError, match="sum to 1"):
        ClassSplit(data=Digits(), fractions=(0.5, 0.2, 0.2))


# -------------------------------------------------------------------------------------------------------------- checks


def test_checks_name_what_is_wrong() -> None:
    with pytest.raises(DataError, match=r"only one class has samples \(c1\)"):
        require_classes(samples_of([1, 1], 3))
    with pytest.raises(DataError, match="class 'c2' has no samples"):
        require_classes(samples_of([1, 0], 3), at_least=3)
    with pytest.raises(DataError, match="only 2 classes have"):
        require_classes(samples_of([1, 0], 4), at_least=3)
    with pytest.raises(DataError, match="not one sample"):
        require_some(samples_of([], 3), where="here")
    with pytest.raises(DataError, match=r"row 1 holds nan \(and 1 more row\)"):
        require_finite(np.array([[0.0], [np.nan], [np.inf]]), where="here")
    with pytest.raises(DataError, match="label 3 of sample 1 is outside 0 to 2"):
        require_in_range(np.array([0, 3]), 3, where="here")
    require_classes(samples_of([1, 0], 3))


# -------------------------------------------------------------------------------------------------------------- images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three cats, two dogs; the second cat is wide, the third transparent."""
    for name in ("cats", "dogs"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(2):
        for name in ("cats", "dogs"):
            pixels = random.integers(0, 255, (20 + 10 * i, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(tmp_path / "pictures" / "cats" / "2.png")
    (tmp_path / "pictures" / "cats" / ".hidden").write_text("not an image")
    return tmp_path / "pictures"


def test_a_folder_of_images(folder: Path) -> None:
    samples = Images(folder=str(folder), size=16).open()
    assert samples.inputs.shape == (5, 3, 16, 16)
    assert samples.classes == ("cats", "dogs")
    assert samples.labels.tolist() == [0, 0, 0, 1, 1]
    assert samples.inputs[2].min() == 255
    assert Images(folder=str(folder), size=16, channels=1).open().inputs.shape == (5, 1, 16, 16)


def test_broken_images_are_refused_or_left_out(folder: Path) -> None:
    whole = (folder / "cats" / "1.png").read_bytes()
    (folder / "cats" / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dogs" / "notes.dat").write_text("no image")
    with pytest.raises(DataError) as caught:
        Images(folder=str(folder)).open()
    assert "2 files are not whole images" in str(caught.value)
    assert str(folder / "cats" / "1.png") in str(caught.value)
    assert "skip_broken" in str(caught.value)
    for _ in range(2):
        samples = Images(folder=str(folder), skip_broken=True).open()
        assert samples.labels.tolist() == [0, 0, 1, 1]
        assert "broken images left out: 2" in samples.warnings[0]
        assert "notes.dat" in samples.warnings[0]


def test_a_folder_without_images_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="holds no folder with images"):
        Images(folder=str(folder / "cats")).open()
    with pytest.raises(DataError, match="the folder of images is missing"):
        Images(folder=str(tmp_path / "none")).open()


def test_all_images_broken_is_an_empty_split(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").write_text("no image")
    with pytest.raises(DataError, match="not one sample"):
        Images(folder=str(tmp_path), skip_broken=True).open()


def test_dark_ink_on_paper_is_inverted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    paper = np.full((12, 12), 250, np.uint8)
    paper[4:8, 4:8] = 5
    Image.fromarray(paper).save(tmp_path / "a" / "1.png")
    Image.fromarray(255 - paper).save(tmp_path / "a" / "2.png")
    deep = paper.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a" / "3.png")
    images = Images(folder=str(tmp_path), size=12, channels=1, ink="light").open().inputs
    assert (images[:, 0, 0, 0] == 5).all()
    assert (images[:, 0, 5, 5] == 250).all()
    assert lightened(np.full((1, 1, 1), 255, np.uint8)).item() == 0


# -------------------------------------------------------------------------------------------------------------- arrays


def test_arrays_of_images_rows_and_targets(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, inputs=np.zeros((4, 6, 5, 3), np.uint8), labels=np.array(["b", "a", "b", "b"]))
    samples = Arrays(file=path).open()
    assert (samples.inputs.shape, samples.classes, samples.labels.tolist()) == ((4, 3, 6, 5), ("a", "b"), [1, 0, 1, 1])
    assert samples.preprocessing.size == (6, 5)
    assert len(samples.preprocessing.mean) == 3
    np.savez(path, inputs=np.zeros((4, 6, 5), np.uint8), labels=np.arange(4))
    assert Arrays(file=path).open().inputs.shape == (4, 1, 6, 5)
    np.savez(path, inputs=np.zeros((4, 6), np.int16), labels=np.linspace(0, 1, 4))
    samples = Arrays(file=path).open()
    assert (samples.inputs.dtype, samples.labels.shape, samples.labels.dtype) == (np.int16, (4, 1), np.float32)
    assert samples.preprocessing.kind == "none"
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    np.save(tmp_path / "y.npy", np.array([1, 0]))
    files = Arrays(file=str(tmp_path / "x.npy"), labels_file=str(tmp_path / "y.npy"), classes=("no", "yes"))
    assert files.open().classes == ("no", "yes")


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (np.array([[0.0], [np.nan]]), np.arange(2), "row 1 holds nan"),
        (np.zeros((2, 1)), np.arange(3), "do not fit"),
        (np.zeros((2, 1)), np.array([0, -1]), "label -1 of sample 1"),
        (np.zeros((2, 1)), np.array([0.0, np.inf]), "row 1 holds inf"),
        (np.zeros((0, 1)), np.zeros(0, int), "not one sample"),
        (np.zeros((2, 1)), np.zeros((2, 2, 2)), "neither classes nor targets"),
        (np.array([[object()]] * 2), np.arange(2), "not a whole file of plain arrays"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, inputs: np.ndarray, labels: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", inputs=inputs, labels=labels)
    with pytest.raises(DataError, match=message):
        Arrays(file=str(tmp_path / "a.npz")).open()


def test_a_file_that_holds_no_such_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", inputs=np.zeros((2, 1)), label=np.arange(2))
    with pytest.raises(DataError, match="did you mean 'label'"):
        Arrays(file=str(tmp_path / "a.npz")).open()
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    with pytest.raises(DataError, match=r"b\.npz"):
        Arrays(file=str(tmp_path / "b.npz")).open()
    with pytest.raises(DataError, match="outside 0 to 0"):
        Arrays(file=str(tmp_path / "a.npz"), labels="label", classes=("one",)).open()


# --------------------------------------------------------------------------------------------------------------- table

CSV = "age,colour,wild,kind\n1,red,true,cat\n2,blue,false,dog\n,red,true,cat\n4,,false,dog\n"


def test_a_table_is_encoded(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    whole = Table(file=str(path), target="kind", scale=False).open()
    assert whole.classes == ("cat", "dog")
    assert whole.labels.tolist() == [0, 1, 0, 1]
    third = 1 / 3
    assert np.allclose(
        whole.inputs,
        [[1, 0, 1, 1], [2, 1, 0, 0], [7 / 3, 0, 1, 1], [4, third, 2 * third, 0]],
    )
    ordinal = Table(file=str(path), target="kind", encode="ordinal", features=("colour",), scale=False).open()
    assert np.allclose(ordinal.inputs.ravel(), [1, 0, 1, 2 / 3])


def test_parquet_gives_the_same_as_csv(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    table = pa.table(
        {
            "age": [1, 2, None, 4],
            "colour": pa.array(["red", "blue", "red", None]).dictionary_encode(),
            "wild": [True, False, True, False],
            "kind": ["cat", "dog", "cat", "dog"],
        }
    )
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    csv, parquet = (
        Table(file=str(tmp_path / name), target="kind", missing="mean").open() for name in ("t.csv", "t.parquet")
    )
    assert np.array_equal(csv.inputs, parquet.inputs)
    assert csv.classes == parquet.classes


@pytest.mark.parametrize(
    ("text", "fields", "error", "message"),
    [
        (CSV, {"missing": "refuse"}, DataError, r"row 3, column 'age' holds no value \(2 of 4 rows"),
        (CSV, {"features": ("colour",), "missing": "refuse"}, DataError, "row 4, column 'colour' holds no value"),
        (CSV, {"target": "kin"}, SpecError, "did you mean 'kind'"),
        (CSV, {"features": ("kind",)}, SpecError, "other than the target"),
        (CSV, {"target": "age"}, DataError, r"row 3, column 'age' \(the target\) holds no value"),
        (CSV, {"task": "values"}, DataError, "holds words, not numbers"),
        ("x,kind\ninf,1\n2,2\n", {"missing": "mean"}, DataError, "row 1, column 'x' holds infinity"),
        ("x,kind\n1e101,1\n2,2\n", {"missing": "mean"}, DataError, r"row 1, column 'x' holds a number beyond 1e\+100"),
        ("x,kind\n1,inf\n2,2\n", {}, DataError, r"row 1, column 'kind' \(the target\) holds no value"),
        ("x,kind\n,1\n,2\n", {"features": ("x",)}, DataError, "no finite value to take the mean of"),
        ("x,kind\n,1\n,2\n", {}, DataError, "no column to predict from: column 'x' holds no value"),
        ("x,kind\n1,1.5\n2,2\n", {}, DataError, "holds fractions, such as 1.5"),
        ("x,kind\n2020-01-01,1\n2020-01-02,2\n", {}, DataError, "no column to predict from: column 'x' holds dates"),
        ("x,kind\n2020-01-01,1\n2020-01-02,2\n", {"features": ("x",)}, DataError, "'x' holds dates, neither numbers"),
        ("x,x,kind\n1,1,1\n", {}, DataError, r"2 columns are named 'x' \(1, 2 from the left\)"),
        ("x,kind\n1,2,3\n", {}, DataError, "not a whole table"),
        ("x,kind\n", {}, DataError, "not one sample"),
        ("", {}, DataError, "not a whole table"),
    ],
)
def test_tables_that_cannot_be_used(
    tmp_path: Path, text: str, fields: dict[str, object], error: type[Exception], message: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(error, match=message):
        Table(file=str(tmp_path / "t.csv"), **{"target": "kind", **fields}).open()  # type: ignore[arg-type]


def test_parts_of_a_table_are_disjoint_and_encoded_alike(tmp_path: Path) -> None:
    rows = "".join(f"{i},{'abc'[i % 3]},{i % 2}\n" for i in range(40))
    (tmp_path / "t.csv").write_text("x,word,y\n" + rows)
    whole, train, test = (
        Table(file=str(tmp_path / "t.csv"), target="y", split=split, scale=False).open()
        for split in ("all", "train", "test")
    )
    assert (len(train), len(test)) == (32, 8)
    assert train.inputs.shape[1] == test.inputs.shape[1] == 4
    assert sorted([*train.inputs[:, 0], *test.inputs[:, 0]]) == whole.inputs[:, 0].tolist()
    assert np.bincount(test.labels).tolist() == [4, 4]
    values = Table(file=str(tmp_path / "t.csv"), target="x", task="values", split="test").open()
    assert values.labels.shape == (8, 1)


# --------------------------------------------------------------------------------------------------------------- CIFAR


def test_cifar_records(tmp_path: Path) -> None:
    path = tmp_path / "records.bin"
    records = np.random.default_rng(0).integers(0, 10, (4, 3074), dtype=np.uint8)
    path.write_bytes(records.tobytes())
    images, labels = read_records(path, label_bytes=2, images=4, classes=10)
    assert np.array_equal(images[3], records[3, 2:].reshape(3, 32, 32))
    assert labels.tolist() == records[:, 1].tolist()
    with pytest.raises(DataError, match=r"truncated or not CIFAR's: 12296 bytes instead of 15370"):
        read_records(path, label_bytes=2, images=5, classes=10)
    with pytest.raises(DataError, match="outside 0 to 2"):
        read_records(path, label_bytes=2, images=4, classes=3)


def test_held_out_images_are_stratified() -> None:
    samples = samples_of([0] * 60 + [1] * 30, 2)
    train, validation = (held_out(samples, split, 9, where="x") for split in ("train", "validation"))
    assert np.bincount(validation.labels).tolist() == [6, 3]
    assert sorted([*train.inputs.ravel(), *validation.inputs.ravel()]) == list(range(90))
    assert held_out(samples, "train", 0, where="x") is samples


def test_a_validation_split_of_nothing_is_refused(data: Path) -> None:
    with pytest.raises(SpecError, match="set holdout"):
        held_out(samples_of([0, 1], 2), "validation", 0, where="cifar10")
    with pytest.raises(DomainError, match="below 2"):
        held_out(samples_of([0, 1], 2), "train", 2, where="cifar10")


# ----------------------------------------------------------------------------------------------------------- real data


@pytest.mark.slow
@pytest.mark.parametrize("real", [["omniglot-py"]], indirect=True)
def test_omniglot_is_whole(real: Path) -> None:
    background, evaluation = Omniglot().open(), Omniglot(split="evaluation").open()
    assert (len(background.classes), len(evaluation.classes)) == (964, 659)
    assert len(background) + len(evaluation) == 32_460
    assert not set(background.classes) & set(evaluation.classes)
    assert (np.bincount(evaluation.labels) == 20).all()
    assert background.inputs[:, :, 0].mean() < 10
    assert background.inputs.max((1, 2, 3)).mean() > 150


@pytest.mark.slow
@pytest.mark.parametrize("real", [["omniglot-py", "splits/omniglot"]], indirect=True)
def test_omniglot_of_vinyals(real: Path) -> None:
    parts = [Omniglot(split=split).open() for split in ("train", "validation", "test")]
    assert [len(part.classes) for part in parts] == [1028, 172, 423]
    assert len({name for part in parts for name in part.classes}) == 1623
    both = Omniglot(split="trainval").open()
    assert set(both.classes) == {*parts[0].classes, *parts[1].classes}
    assert Omniglot(split="trainval").fingerprint() != Omniglot(split="train").fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize("real", [["omniglot-py"]], indirect=True)
def test_omniglot_whatever_the_alphabet(real: Path) -> None:
    parts = [Omniglot(split=split).open() for split in ("random_train", "random_validation", "random_test")]
    assert [len(part.classes) for part in parts] == [1100, 100, 423]
    assert len({name for part in parts for name in part.classes}) == 1623
    assert all(len({name.partition("/")[0] for name in part.classes}) == 50 for part in (parts[0], parts[2]))
    both = Omniglot(split="random_trainval").open()
    assert set(both.classes) == {*parts[0].classes, *parts[1].classes}
    whole = [Omniglot(split=split).open() for split in ("background", "evaluation")]
    drawing = {name: part.inputs[20 * i] for part in whole for i, name in enumerate(part.classes)}
    for i in (0, 200, 422):
        assert np.array_equal(parts[2].inputs[20 * i], drawing[parts[2].classes[i]])
    # The split is the same for all, for good: published figures stand on it.
    assert hashlib.sha256("\n".join(parts[2].classes).encode()).hexdigest().startswith("691e9ac189ff5eaa")


@pytest.mark.parametrize("real", [["omniglot-py"]], indirect=True)
def test_omniglot_turned(real: Path) -> None:
    plain = Omniglot(split="evaluation").open()
    turned = Omniglot(split="evaluation", rotations=True).open()
    assert len(turned.classes) == len(set(turned.classes)) == 4 * 659
    assert np.array_equal(turned.inputs[len(plain), 0], np.rot90(plain.inputs[0, 0]))
    assert turned.classes[turned.labels[len(plain)]] == f"{plain.classes[0]}/90"


@pytest.mark.parametrize("real", [["omniglot-py"]], indirect=True)
def test_omniglot_mirrored(real: Path) -> None:
    plain = Omniglot(split="evaluation").open()
    mirrored = Omniglot(split="evaluation", rotations=True, reflections=True).open()
    assert len(mirrored.classes) == len(set(mirrored.classes)) == 8 * 659
    assert np.array_equal(mirrored.inputs[len(plain), 0], np.fliplr(plain.inputs[0, 0]))
    assert mirrored.classes[mirrored.labels[len(plain)]] == f"{plain.classes[0]}/mirrored"
    assert np.array_equal(mirrored.inputs[3 * len(plain), 0], np.rot90(np.fliplr(plain.inputs[0, 0])))
    assert mirrored.classes[mirrored.labels[3 * len(plain)]] == f"{plain.classes[0]}/mirrored/90"


@pytest.mark.parametrize("real", [["cifar-10-batches-bin"]], indirect=True)
def test_cifar10_is_whole(real: Path) -> None:
    train, test = Cifar10().open(), Cifar10(split="test").open()
    assert (train.inputs.shape, test.inputs.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert np.bincount(train.labels).tolist() == [5000] * 10
    scaled = train.inputs[::5].reshape(10_000, 3, -1) / np.float32(255)
    assert np.allclose(scaled.mean((0, 2)), train.preprocessing.mean, atol=0.01)
    assert np.allclose(scaled.std((0, 2)), train.preprocessing.std, atol=0.01)


@pytest.mark.parametrize("real", [["cifar-10-batches-bin"]], indirect=True)
def test_cifar10_held_out(real: Path) -> None:
    train, validation = (Cifar10(split=split, holdout=5000).open() for split in ("train", "validation"))
    assert (len(train), len(validation)) == (45_000, 5_000)
    assert np.bincount(validation.labels).tolist() == [500] * 10


@pytest.mark.parametrize("real", [["cifar-100-binary"]], indirect=True)
def test_cifar100_is_whole(real: Path) -> None:
    train, test = Cifar100().open(), Cifar100(split="test").open()
    assert np.bincount(train.labels).tolist() == [500] * 100
    assert np.bincount(test.labels).tolist() == [100] * 100
    assert train.classes[:2] == ("apple", "aquarium_fish")
    scaled = train.inputs[::25].reshape(2000, 3, -1) / np.float32(255)
    assert np.allclose(scaled.mean((0, 2)), train.preprocessing.mean, atol=0.02)


@pytest.mark.parametrize("real", [["cifar-100-binary", "splits/cifar-fs"]], indirect=True)
def test_cifar_fs_is_whole(real: Path) -> None:
    names: list[str] = []
    for split, count in (("train", 64), ("validation", 16), ("test", 20)):
        samples = CifarFs(split=split).open()
        assert len(samples.classes) == count
        assert np.bincount(samples.labels).tolist() == [600] * count
        names += samples.classes
    assert len(set(names)) == 100
