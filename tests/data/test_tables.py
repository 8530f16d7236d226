"""Raw tables, from file to answer: what was trained on a table answers raw rows of it, and nothing is guessed in silence."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sklearn.linear_model import LogisticRegression
from tests.command import mapsto

from mapsto.cli.adapt.tables import _features, _task, adapt_to_table
from mapsto.context import Context
from mapsto.data.io.tables import doubtful, learnt_columns, parsed_columns, read_table, relearnt_rows, target_of
from mapsto.data.sets.table import Table
from mapsto.data.stratify import fold_of_each
from mapsto.errors import DataError, MapstoError, SpecError
from mapsto.kinds import Package, Preprocessing, Signature
from mapsto.mappings.adapt.linear import Linear
from mapsto.mappings.evaluate.accuracy import Accuracy, share
from mapsto.mappings.export.onnx import Onnx
from mapsto.mappings.networks.mlp import Mlp
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.preprocessing.raw_tables import read_raw
from mapsto_runtime.preprocessing.tables import encoded, values_of

HEADER = "id,age,town,code,kind"


def animals(count: int = 60) -> list[list[str]]:
    """Rows: an id, an age that tells cats from dogs up to a large offset, a town, a code with a leading zero, and the kind."""
    rng = np.random.default_rng(1)
    kinds = [("cat", "dog")[i % 2] for i in range(count)]
    ages = [5000 + 1000 * (kind == "dog") + 200 * rng.normal() for kind in kinds]
    return [
        [str(100 + 7 * i), f"{age:.2f}", ("Ulm", "Köln", "Rom")[i % 3], ("007", "012")[i % 2], kind]
        for i, (age, kind) in enumerate(zip(ages, kinds, strict=True))
    ]


def written(place: Path, rows: list[list[str]], header: str | None = HEADER, *, sep: str = ",", coding="utf-8") -> Path:
    lines = ([header.replace(",", sep)] if header else []) + [sep.join(row) for row in rows]
    place.write_bytes("\n".join([*lines, ""]).encode(coding))
    return place


def unpacked(package: Package, folder: Path) -> Path:
    for name, path in package.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / name)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """A table, and the package of its model."""
    folder = tmp_path_factory.mktemp("tables")
    file = written(folder / "animals.csv", animals())
    package, found = adapt_to_table(file, "kind", Context(seed=0))
    assert found["accuracy_percent"] > 90
    assert found["features"] == ["age", "town", "code"], "the id is left out"
    said = " ".join(Table(file=str(file), target="kind", ids="drop").open().notes)
    assert "'id' numbers the rows" in said
    assert "codes such as '007'" in said
    return file, unpacked(package, folder / "package")


def labels(folder: Path, place: Path) -> list[str]:
    return [prediction.label for prediction in Predictor(folder).predict([place])]


def columns_in(rows: list[list[str]], names: list[str]) -> list[list[str]]:
    places = [HEADER.split(",").index(name) for name in names]
    return [[row[place] for place in places] for row in rows]


# ---------------------------------------------------------------------------------------------------------------- raw rows


def test_columns_are_matched_by_name_and_the_label_is_passed_over(trained, tmp_path):
    file, package = trained
    expected = [row[-1] for row in animals()]
    assert np.mean(np.array(labels(package, file)) == expected) > 0.9
    whole = labels(package, file)
    for names in (["kind", "code", "town", "age", "id"], ["town", "code", "age"]):
        assert labels(package, written(tmp_path / "r.csv", columns_in(animals(), names), ",".join(names))) == whole


@pytest.mark.parametrize(("sep", "coding"), [(";", "utf-8-sig"), ("\t", "utf-16"), ("|", "cp1252")])
def test_separators_decimal_commas_and_encodings_are_found_and_said(trained, tmp_path, sep, coding):
    file, package = trained
    rows = [[row[0], row[1].replace(".", ","), *row[2:]] for row in animals()]
    found = Predictor(package).answers([written(tmp_path / "r.csv", rows, sep=sep, coding=coding)])
    assert [answer.label for answer in found.predictions] == labels(package, file)
    said = " ".join(found.notes)
    assert "decimal commas (column 'age')" in said
    assert "separated by" in said
    assert ("Latin-1" in said) is (coding == "cp1252")
    assert "training did not have" not in said, "towns are read right"


def test_parquet_rows_answer_as_csv_rows_do(trained, tmp_path):
    file, package = trained
    rows = animals()
    table = {name: [row[i] for row in rows] for i, name in enumerate(HEADER.split(","))}
    table["age"] = [float(age) for age in table["age"]]
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "r.parquet")
    assert labels(package, tmp_path / "r.parquet") == labels(package, file)


def test_without_a_header_columns_go_by_position_and_it_is_said(trained, tmp_path):
    file, package = trained
    for names in (["age", "town", "code"], HEADER.split(",")):
        place = written(tmp_path / "r.csv", columns_in(animals(), names), None)
        found = Predictor(package).answers([place])
        assert [answer.label for answer in found.predictions] == labels(package, file)
        assert any("it has no header" in note for note in found.notes)
    with pytest.raises(DataError, match="no header, and 2 columns where 3 are predicted from"):
        labels(package, written(tmp_path / "r.csv", columns_in(animals(), ["age", "town"]), None))


def test_missing_and_extra_columns_are_named(trained, tmp_path):
    _, package = trained
    with pytest.raises(DataError, match=r"there is no column 'town'.*did you mean 'twon'"):
        rows = columns_in(animals(), ["age", "town", "code"])
        labels(package, written(tmp_path / "r.csv", rows, "age,twon,code"))
    place = written(tmp_path / "r.csv", [[*row, "1"] for row in animals()], f"{HEADER},colour")
    assert any("'colour' is passed over" in note for note in Predictor(package).answers([place]).notes)


def test_gaps_are_filled_and_new_words_count_as_gaps(trained, tmp_path):
    _, package = trained
    rows = [["", "Ulm", "007"], ["5000", "Paris", "007"], ["5000", "", "007"], ["5000", "NA", "007"]]
    found = Predictor(package).answers([written(tmp_path / "r.csv", rows, "age,town,code")])
    assert len(found.predictions) == 4
    assert found.predictions[1].scores == found.predictions[2].scores == found.predictions[3].scores
    assert any("'Paris' in 'town'" in note for note in found.notes)
    assert any("filled with the mean of the train rows" in note for note in found.notes)


def test_a_bad_row_or_file_does_not_lose_the_others_answers(trained, tmp_path):
    file, package = trained
    bad = written(
        tmp_path / "bad.csv", [["5000", "Ulm", "007"], ["old", "Ulm", "007"], ["6000", "Rom", "012"]], "age,town,code"
    )
    found = Predictor(package).answers([bad, tmp_path / "none.csv", file])
    assert [answer.index for answer in found.predictions[:2]] == [0, 2]
    assert len(found.predictions) == 2 + 60
    assert ["row 2, column 'age' holds 'old'" in str(found.errors[0]), "none.csv" in str(found.errors[1])] == [
        True,
        True,
    ]
    with pytest.raises(DataError, match="row 2, column 'age' holds 'old', which is no number"):
        Predictor(package).predict([bad])
    done = mapsto("predict", package, bad, tmp_path / "none.csv", file, "--json", code=2)
    assert len(json.loads(done.out)) == 62
    assert "row 2, column 'age' holds 'old'" in done.err
    assert "none.csv" in done.err


# ---------------------------------------------------------------------------------------------------------------- training


def test_columns_are_scaled_by_the_train_rows(tmp_path):
    file = written(tmp_path / "t.csv", animals())
    train = Table(file=str(file), target="kind", split="train", features=("age",)).open()
    test = Table(file=str(file), target="kind", split="test", features=("age",)).open()
    assert abs(train.inputs.mean()) < 1e-6
    assert train.inputs.std() == pytest.approx(1, abs=1e-6)
    assert test.preprocessing == train.preprocessing
    raw = Table(file=str(file), target="kind", split="test", features=("age",), scale=False).open()
    column = train.preprocessing.columns[0]
    assert np.allclose(test.inputs, (raw.inputs - column.mean) / column.std, atol=1e-5)


def test_another_table_is_encoded_as_the_network_was_trained(tmp_path):
    """Scaled by its own rows, a table of dogs and one cat would have its young dogs taken for cats."""
    data = Table(file=str(written(tmp_path / "t.csv", animals())), target="kind", ids="drop")
    context = Context()
    network = context.apply(Linear(data=data), context.apply(Mlp(data=data, widths=()), None))
    dogs = [row for row in animals() if row[-1] == "dog"] + [animals()[0]]
    shuffled = written(tmp_path / "u.csv", [row[::-1] for row in dogs], "kind,code,town,age,id")
    report = context.apply(Accuracy(data=Table(file=str(shuffled), target="kind")), network)
    assert report.metrics["accuracy"].value > 90


@pytest.mark.parametrize(
    ("cells", "kind", "categories"),
    [
        (["007", "012", "7"], "words", ("007", "012", "7")),
        (["DE", "NA", "FR"], "words", ("DE", "FR", "NA")),
        (["north", "NA", "south"], "words", ("north", "south")),
        (["1", "NA", "3"], "numbers", ()),
        (["1,5", "2", "3,25"], "numbers", ()),
        (["true", "false", "true"], "numbers", ()),
        (["1", "x", "3"], "words", ("1", "3", "x")),
    ],
)
def test_types_of_columns(tmp_path, cells, kind, categories):
    rows = [[cell, "ab"[i % 2]] for i, cell in enumerate(cells)]
    column = Table(file=str(written(tmp_path / "t.csv", rows, "x;y".replace(";", ","), sep=";")), target="y").open()
    assert (column.preprocessing.columns[0].type, column.preprocessing.columns[0].categories) == (kind, categories)


def test_dots_part_thousands_where_the_table_has_decimal_commas(tmp_path):
    rows = "".join(f"{1000 + i:,};{i},5;{'ab'[i % 2]}\n".replace(",", ".", 1) for i in range(40))
    file = tmp_path / "money.csv"
    file.write_text("umsatz;wert;note\n" + rows, encoding="utf-8")
    table = read_table(file, ())
    assert values_of(table.columns[0], 0 in table.decimal_commas)[0].tolist() == [1000.0 + i for i in range(40)]
    assert values_of(table.columns[1], 1 in table.decimal_commas)[0].tolist() == [i + 0.5 for i in range(40)]
    file.write_text(f"umsatz;wert;note\n{rows}1.25;3,5;a\n", encoding="utf-8")  # now nothing is sure of the table
    mixed = read_table(file, ())
    assert mixed.decimal_commas == {1}


@pytest.mark.parametrize("odd", ["?", "unknown"])
def test_a_few_odd_words_among_many_numbers_are_gaps(odd, tmp_path):
    cells = [str(i / 4) for i in range(40)]
    cells[7] = odd
    (tmp_path / "t.csv").write_text("size,kind\n" + "".join(f"{c},{'ab'[i % 2]}\n" for i, c in enumerate(cells)))
    table = read_table(tmp_path / "t.csv", ())
    learnt = learnt_columns(table, ["size"], np.ones(40, bool), where="t")
    assert learnt.columns[0].type == "numbers"
    assert learnt.columns[0].fill[0] == pytest.approx(np.mean([i / 4 for i in range(40) if i != 7]))
    assert bool(learnt.warnings) == (odd == "unknown")
    before = Preprocessing(kind="none", columns=learnt.columns)
    again = encoded(read_raw(f"size\n{odd}\n2\nelse\n".encode(), "rows", known=["size"]), before, "rows")
    assert again.rows[0] == pytest.approx(0, abs=1e-6)
    assert list(again.errors) == [2]
    assert "'else', which is no number" in str(again.errors[2])


def test_the_decimal_sign_of_the_training_table_holds_for_rows_that_do_not_show_theirs(tmp_path):
    rows = "".join(f"{'4' if i % 2 else '1'}.{i:03d},5;{i % 3};{('low', 'high')[i % 2]}\n" for i in range(60))
    (tmp_path / "t.csv").write_text("salary;k;kind\n" + rows, encoding="utf-8")
    table = read_table(tmp_path / "t.csv", ())
    assert not doubtful(table, ["salary"]).ids
    learnt = learnt_columns(table, ["salary", "k"], np.ones(60, bool), where="t")
    before = Preprocessing(kind="none", columns=learnt.columns, header=("salary", "k", "kind"))
    plain = encoded(read_raw(b"salary;k\n4.020;1\n", "rows", known=before.header), before, "rows").rows
    shown = encoded(read_raw(b"salary;k\n4.020,0;1\n", "rows", known=before.header), before, "rows").rows
    points = encoded(read_raw(b"salary;k\n4020.0;1\n", "rows", known=before.header), before, "rows").rows
    assert plain.tolist() == shown.tolist() == points.tolist()
    signature = Signature(inputs=(), outputs=(), preprocessing=before).plain()
    assert [column.get("decimal") for column in signature["preprocessing"]["columns"]] == [",", ","]


def test_a_row_of_empty_cells_between_others_is_told_of_and_one_at_the_end_is_not():
    table = read_raw(b"age,town\n1,Ulm\n,\n,\n\n2,Rom\n,\n", "rows")
    assert len(table) == 2
    assert table.notes == ("2 rows in which every cell is empty are passed over and not counted, below row 1",)
    assert read_raw(b"age,town\n\n1,Ulm\n,\n", "rows").notes == ()
    assert read_raw(b"1,5\n,\n2,6\n", "rows", known=["age", "size"]).notes[0].endswith("below row 1")


def test_a_header_in_other_letters_and_one_of_other_names(tmp_path):
    rows = "".join(f"{('red', 'blue')[i % 2]},{('round', 'square')[i % 3 % 2]},{'ab'[i % 2]}\n" for i in range(24))
    (tmp_path / "t.csv").write_text("colour,shape,kind\n" + rows, encoding="utf-8")
    learnt = learnt_columns(read_table(tmp_path / "t.csv", ()), ["colour", "shape"], np.ones(24, bool), where="t")
    before = Preprocessing(kind="none", columns=learnt.columns, header=("colour", "shape", "kind"))

    def rows_of(text: str):
        return encoded(read_raw(text.encode(), "rows", known=before.header), before, "rows")

    usual = rows_of("colour,shape\nred,square\n").rows.tolist()
    other = rows_of("SHAPE,Colour\nsquare,red\n")
    assert other.rows.tolist() == usual
    assert "column 'SHAPE' is taken for 'shape'" in other.notes
    assert rows_of("red,square\n").rows.tolist() == usual
    with pytest.raises(DataError, match=r"its first line .* holds neither columns nor values"):
        rows_of("Farbe,Form\nred,square\n")
    with pytest.raises(
        DataError, match=r"its header \('size', 'weight', .* names none of the 2 columns that are predicted"
    ):
        rows_of("size,weight,age,price\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"names 1 of the 2 columns that are predicted from"):
        rows_of("size,weight,age,shape,price,sold\n1,2,3,4,square,x\n")
    with pytest.raises(DataError, match="it has no header, and 4 columns where 2 are predicted from"):
        rows_of("red,square,3,4\nblue,round,5,6\n")


def test_units_tiny_numbers_and_dates(tmp_path):
    cells = [
        f'{(1, 2)[i % 2]}.{i:02d}e-11,{i + 0.5:.1f} %,"$1,{100 + 7 * i}.00",{1 + i % 28:02d}.07.2022,{"ab"[i % 2]}'
        for i in range(40)
    ]
    (tmp_path / "t.csv").write_text("farad,share,price,day,kind\n" + "\n".join(cells) + "\n", encoding="utf-8")
    samples = Context().dataset(Table(file=str(tmp_path / "t.csv"), target="kind", task="classes", ids="drop"))
    columns = {column.name: column for column in samples.preprocessing.columns}
    assert list(columns) == ["farad", "share", "price"]
    assert {column.type for column in columns.values()} == {"numbers"}
    assert columns["farad"].std == pytest.approx(0.5e-11, rel=0.1)
    assert columns["price"].mean == pytest.approx(1236.5)
    assert any("'day' holds dates" in text for text in samples.warnings)


def test_whole_numbers_of_parquet_may_be_large(tmp_path):
    table = pyarrow.table(
        {"hash": [2**60 + 1024 * i for i in range(20)], "x": [float(i) for i in range(20)], "y": ["a", "b"] * 10}
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    samples = Context().dataset(Table(file=str(tmp_path / "t.parquet"), target="y", task="classes"))
    assert samples.inputs.shape == (20, 2)


def test_an_id_column_is_noticed(tmp_path):
    file = written(tmp_path / "t.csv", animals())
    kept = Table(file=str(file), target="kind").open()
    assert any("'id' numbers the rows" in text for text in kept.warnings)
    assert [column.name for column in kept.preprocessing.columns] == ["id", "age", "town", "code"]
    dropped = Table(file=str(file), target="kind", ids="drop").open()
    assert [column.name for column in dropped.preprocessing.columns] == ["age", "town", "code"]


def test_images_keep_their_digests_and_tables_survive_json():
    plain = Signature(inputs=(), outputs=(), preprocessing=Preprocessing()).plain()
    assert set(plain["preprocessing"]) == {"kind", "channels", "size", "mean", "std", "ink"}


def test_classes_of_unequal_size(tmp_path):
    """200 of one class and 8 of the other, close by: without weights the few are hardly answered, with them nearly all are."""
    rng = np.random.default_rng(0)
    counts = {"many": 400, "few": 8}
    rows = [[f"{rng.normal(1.6 * (name == 'few')):.4f}", name] for name, count in counts.items() for _ in range(count)]
    data = Table(file=str(written(tmp_path / "t.csv", rows, "x,y")), target="y")
    recalls = {}
    for weights in ("none", "balanced"):
        context = Context()
        network = Linear(data=data, class_weights=weights, standardize=False).apply(
            Mlp(data=data, widths=())(), context
        )
        table = Accuracy(data=data).apply(network, Context()).tables["per_class"]
        place = next(place for place, column in enumerate(table.columns) if "recall" in column)
        recalls[weights] = next(row[place] for row in table.rows if row[0] == "few")
        assert any("class_weights: balanced" in note for note in context.notes) is (weights == "none")
    assert recalls["none"] <= 25
    assert recalls["balanced"] >= 60


@pytest.mark.parametrize("task", ["values", "labels"])
def test_rows_of_values_and_labels_answer(tmp_path, task):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2)) * [1, 1000]
    first, second = x[:, 0], x[:, 1] / 1000
    targets = np.stack([3 * first - second, second], 1) if task == "values" else np.stack([first > 0, second > 0], 1)
    as_text = str if task == "values" else (lambda number: str(int(number)))
    rows = [[*map(str, row), *map(as_text, goal)] for row, goal in zip(x, targets, strict=True)]
    file = written(tmp_path / "t.csv", rows, "a,b,p,q")
    data = Table(file=str(file), target=("p", "q"), task=task)
    network = Linear(data=data, strength=100)(Mlp(data=data, widths=())())
    found = Predictor(unpacked(Onnx(data=data)(network), tmp_path / "package")).predict([file])
    scores = np.array([[answer.scores["p"], answer.scores["q"]] for answer in found])
    if task == "values":
        assert np.abs(scores - targets).max() < 0.1
    else:
        assert np.mean((scores > 0.5) == targets) > 0.97
        assert found[0].label == (", ".join(n for n, t in zip("pq", targets[0], strict=True) if t) or "none")


def test_the_cross_validated_figure_is_that_of_the_folds(tmp_path):
    """Each row is judged once, in the folds of ``fold``, by a model of the rows outside; the interval is Wilson's."""
    import sklearn.datasets

    bunch = sklearn.datasets.load_iris()
    rows = [[*map(str, x), f"class {y}"] for x, y in zip(bunch.data, bunch.target, strict=True)]
    file = written(tmp_path / "iris.csv", rows, "a,b,c,d,label")
    _, found = adapt_to_table(file, "label", Context(seed=0))
    fold = fold_of_each(bunch.target, 5, 0)
    right = 0
    for number in range(5):
        train, x = fold != number, bunch.data
        scaled = (x - x[train].mean(0)) / x[train].std(0)
        peer = LogisticRegression(max_iter=1000).fit(scaled[train], bunch.target[train])
        right += int((peer.predict(scaled[~train]) == bunch.target[~train]).sum())
    ends = share(right, 150)
    assert found["folds"] == 5
    assert found["accuracy_percent"] == round(100 * right / 150, 2)
    assert (found["accuracy_low_percent"], found["accuracy_high_percent"]) == (round(ends.low, 2), round(ends.high, 2))


# ------------------------------------------------------------------------------------------------------- mapsto adapt, and its words


def table_of(place: Path, columns: dict[str, list[str]], *, sep: str = ",") -> Path:
    """A file of these columns; a cell with a separator or a new line in it is quoted."""
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=sep)
        writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    return place


def asked(place: Path, *, task="auto") -> tuple[str, str, object]:
    """What ``mapsto adapt`` takes the column y of a table for, the words on it, and what the column holds."""
    ctx = Context()
    target = target_of(read_table(place, ["y"]), "y", where=place.name)
    return _task(target, task, Path(place.name), ctx), " ".join(ctx.notes), target


COUNTING = [str(i) for i in range(60)]


@pytest.mark.parametrize(
    ("cells", "sep", "numbers"),
    [
        ([f"${1200 + 40 * i:,}" for i in range(60)], ",", [1200.0 + 40 * i for i in range(60)]),
        ([f"-${1200 + i:,}.50" for i in range(60)], "\t", [-1200.5 - i for i in range(60)]),
        ([f"(£{1200 + i:,})" for i in range(60)], ";", [-1200.0 - i for i in range(60)]),
        ([f"{1200 + i:,} €".replace(",", ".") for i in range(60)], ";", [1200.0 + i for i in range(60)]),
        ([f"{1000 + i},5 €" for i in range(60)], ";", [1000.5 + i for i in range(60)]),
        ([f"1 {200 + i} zł" for i in range(60)], ",", [1200.0 + i for i in range(60)]),
        ([f"CHF 1'{200 + i}.50" for i in range(60)], ",", [1200.5 + i for i in range(60)]),
        ([f"{i} %" for i in range(60)], ",", [float(i) for i in range(60)]),
        ([f"{i % 4}%" for i in range(60)], ",", [float(i % 4) for i in range(60)]),
        (COUNTING, ",", [float(i) for i in range(60)]),
        ([f"{1 + i},{100 + i}" for i in range(60)], "\t", [1100.0 + 1001 * i for i in range(60)]),
        ([f"{1 + i},{100 + i}" for i in range(60)], ";", [1.1 + 1.001 * i for i in range(60)]),
    ],
)
def test_money_percentages_and_many_numbers_are_values(tmp_path, cells, sep, numbers):
    place = table_of(tmp_path / "t.csv", {"x": COUNTING, "y": cells}, sep=sep)
    task, said, target = asked(place)
    assert task == "values"
    assert target.values.tolist() == pytest.approx(numbers)
    assert "values are predicted" in said
    if target.fraction is None:
        assert "--target y --task classes`" in said
        assert asked(place, task="classes")[0] == "classes"
    column = learnt_columns(read_table(place, ()), ["y"], np.ones(60, bool), where="t").columns[0]
    assert column.type == "numbers"
    assert column.mean == pytest.approx(np.mean(numbers))


@pytest.mark.parametrize(
    ("cells", "names", "said"),
    [
        (["NA", "DE"], ("DE", "NA"), "'NA' in 'y' is taken for a class"),
        (["NA", "DE", "FR"], ("DE", "FR", "NA"), "'NA' in 'y' is taken for a class"),
        (["null", "alt"], ("alt", "null"), "'null' in 'y' is taken for a class"),
        (["None", "some"], ("None", "some"), ""),
        (["TRUE", "FALSE"], ("FALSE", "TRUE"), ""),
        (["1", "0"], ("0", "1"), ""),
        (
            ["1", "2", "3"],
            ("1", "2", "3"),
            "3 different whole numbers, which are taken for classes; for values: `mapsto",
        ),
        (["007", "7"], ("007", "7"), ""),
    ],
)
def test_what_counts_as_a_class(tmp_path, cells, names, said):
    place = table_of(tmp_path / "t.csv", {"x": COUNTING, "y": (cells * 60)[:60]})
    task, text, target = asked(place)
    assert (task, target.labels(where="t")[1]) == ("classes", names)
    assert said in text
    assert bool(text) is bool(said)


@pytest.mark.parametrize(
    ("cells", "task", "said"),
    [
        ([f"n{i}" for i in range(60)], "auto", "60 different words in 60 rows"),
        ([f"about {i}" if i % 4 else f"{i}" for i in range(60)], "auto", "60 different words in 60 rows"),
        (
            [f"{i}" if i % 4 else f"about {i}" for i in range(60)],
            "auto",
            "45 of its 60 values are numbers, the others words",
        ),
        ([f"{i / 4}" for i in range(60)], "classes", "it holds fractions, such as 0.25"),
        ([f"{186418.56 + i}" for i in range(60)], "classes", "it holds fractions, such as 186418.56"),
        (["a", "b"] * 30, "values", "it holds words, not values: row 1 holds 'a'"),
        (["alt", ""] * 30, "auto", "its only class is 'alt'; an empty cell (30 rows) counts as a missing value"),
        (["a"] * 60, "auto", "its only class is 'a'"),
        ([f"{1 + i % 28}.1.2020" for i in range(60)], "auto", "(the target) holds dates, which cannot be predicted"),
    ],
)
def test_a_target_that_does_not_fit_is_refused_with_a_remedy(tmp_path, cells, task, said):
    place = table_of(tmp_path / "t.csv", {"x": [f"{i}.5" for i in COUNTING], "y": cells})
    with pytest.raises(MapstoError) as refused:
        adapt_to_table(place, "y", Context(), task=task)
    assert said in str(refused.value)
    assert refused.value.hint
    assert len(str(refused.value)) < 400 + 2 * len(str(place))


def test_rows_without_a_target_are_left_out_and_said(tmp_path):
    cells = ["a", "b", "nan", ""] + ["a", "b"] * 28
    place = table_of(tmp_path / "t.csv", {"x": COUNTING, "y": cells})
    samples = Table(file=str(place), target="y", unlabelled="leave_out").open()
    assert (len(samples), samples.classes) == (58, ("a", "b"))
    assert any(
        "2 of 60 rows are left out, for 'y' (the target) holds no value there (row 3 the first)" in w
        for w in samples.warnings
    )
    assert samples.preprocessing.columns[0].mean == pytest.approx(np.mean([i for i in range(60) if i not in (2, 3)]))
    with pytest.raises(DataError, match=r"row 3, column 'y' .* holds no value \(2 of 60 rows"):
        Table(file=str(place), target="y").open()
    slips = table_of(tmp_path / "s.csv", {"x": COUNTING, "y": [*COUNTING[:59], "unknown"]})
    assert asked(slips)[0] == "values"
    assert len(Table(file=str(slips), target="y", task="values", unlabelled="leave_out").open()) == 59


YEARS = [str(1950 + i) for i in range(60)]


@pytest.mark.parametrize(
    ("name", "cells", "is_id"),
    [
        ("year", YEARS, False),
        ("dose", [str(5 * i) for i in range(60)], False),
        ("dose", [str(i) for i in range(2, 62)], False),
        ("size", [f"{i}.5" for i in range(60)], False),
        ("price", [str((7919 * i) % 1009) for i in range(60)], False),
        ("count", COUNTING, True),
        ("n", [str(i + 1) for i in range(60)], True),
        ("patient_id", YEARS, True),
        ("PatientID", [str((7919 * i) % 1009) for i in range(60)], True),
        ("code", [f"{i:03d}" for i in range(60)], True),
        ("name", [f"p{i}" for i in range(60)], True),
        ("name", [f"p{i % 30}" for i in range(60)], False),
        ("id", [str(i // 2) for i in range(60)], False),
        ("id", ["1", "2", "3"], True),
        ("weight", ["1", "2", "3"], False),
    ],
)
def test_what_an_id_is(tmp_path, name, cells, is_id):
    found = doubtful(read_table(table_of(tmp_path / "t.csv", {name: cells}), ()), [name])
    assert bool(found.ids) is is_id


def test_a_column_of_one_value_is_not_predicted_from_where_another_is_there(tmp_path):
    columns = {"x": ["1", "2.5", "3", "4"], "same": ["Turin", "", "Turin", "Turin"], "y": ["a", "b", "a", "b"]}
    samples = Table(file=str(table_of(tmp_path / "t.csv", columns)), target="y").open()
    assert [column.name for column in samples.preprocessing.columns] == ["x"]
    assert samples.notes == (
        "t.csv: column 'same' holds one value, which tells nothing, and nothing is predicted from it",
    )
    without = read_raw(b"x\n2.625\n", "rows", known=samples.preprocessing.header)
    assert encoded(without, samples.preprocessing, "rows").rows.tolist() == [[0.0]], "the mean of x"
    del columns["x"]
    alone = Table(file=str(table_of(tmp_path / "t.csv", columns)), target="y").open()
    assert [column.name for column in alone.preprocessing.columns] == ["same"], "nothing else is left"


def test_columns_that_are_left_out_are_said_once_and_can_be_taken(tmp_path):
    columns = {
        "": COUNTING,
        "day": ["2020-01-02"] * 60,
        "time": ["12:30"] * 60,
        "gap": ["", "NA"] * 30,
        "x": [f"{i}.5" for i in COUNTING],
        "same": ["5"] * 60,
        "name": [f"p{i}" for i in range(60)],
        "y": ["a", "b"] * 30,
    }
    place = table_of(tmp_path / "t.csv", columns)
    ctx = Context()
    assert _features(read_table(place, ()), "y", (), (), Path("t.csv"), ctx) == ("x",)
    said = [*ctx.warnings, *ctx.notes]
    assert len(said) == 5
    assert "columns 'day', 'time' hold dates" in said[0]
    assert "column 'gap' holds no value" in said[1]
    assert "column 'same' holds one value, which tells nothing" in said[2]
    assert "column 'name' holds another word in every row" in said[4]
    assert said[4].endswith("`mapsto adapt t.csv --target y --include name`")
    taken = _features(read_table(place, ()), "y", ("name", ""), ("x",), Path("t.csv"), Context())
    assert taken == ("", "name")
    assert _features(read_table(place, ()), "y", ("same",), (), Path("t.csv"), Context()) == ("x", "same")
    learnt = learnt_columns(read_table(place, ()), ["x", "same"], np.ones(60, bool), where="t")
    assert learnt.notes == ("column 'same' holds one value, which tells nothing",)
    with pytest.raises(SpecError, match="there is no column 'nam'; did you mean 'name'"):
        adapt_to_table(place, "y", Context(), exclude=("nam",))


def test_a_class_of_one_row_does_not_cost_the_others_their_figure(tmp_path):
    """The figure is that of the table without that row, as far as three classes are told as two are."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 30), rng.normal(4, 1, 30), [40]])
    y = ["low"] * 30 + ["high"] * 30 + ["rare"]
    place = table_of(tmp_path / "t.csv", {"x": [f"{v:.3f}" for v in x], "y": y})
    said = mapsto("adapt", place, "--target", "y", "--out", tmp_path / "o", code=0)
    assert "class 'rare' has one row, so that it is not known how often it is told right" in said.err
    assert "rare: 1 row\n" in said.out
    found = json.loads(mapsto("adapt", place, "--target", "y", "--out", tmp_path / "o", "--json", code=0).out)
    fold = fold_of_each(np.array([1] * 30 + [0] * 30), 5, 0)
    right = 0
    for number in range(5):
        train = np.append(fold != number, True)
        scaled = (x - x[train].mean()) / x[train].std()
        peer = LogisticRegression(max_iter=1000).fit(scaled[train, None], np.array(y)[train])
        judged = np.append(fold == number, False)
        right += int((peer.predict(scaled[judged, None]) == np.array(y)[judged]).sum())
    assert found["not_judged"] == ["rare"]
    assert found["accuracy_percent"] == round(100 * right / 60, 2)


def test_folds_are_learnt_from_as_a_table_of_their_own_would_be(tmp_path):
    """Filling, scaling and words of each fold's train rows: what `learnt_columns` of these rows gives."""
    words = [("a", "b", "c", "")[i % 4] for i in range(59)] + ["only here"]
    numbers = ["" if i % 7 == 0 else f"{i * 1.5}" for i in range(60)]
    table = read_table(
        table_of(tmp_path / "t.csv", {"w": words, "n": numbers, "once": ["3", *[""] * 59], "k": COUNTING}), ()
    )
    whole = learnt_columns(table, ["w", "n", "once"], np.ones(60, bool), where="t").columns
    train = np.arange(60) % 3 > 0
    rows = relearnt_rows(parsed_columns(table, whole, where="t"), whole, train)
    apart = learnt_columns(table, ["w", "n"], train, where="t").columns
    expected = encoded(table, Preprocessing(kind="none", columns=apart), "t").rows
    there = [i for i, word in enumerate(whole[0].categories) if word in apart[0].categories]
    assert np.allclose(rows[:, [*there, 4]], expected, atol=1e-6)
    assert not rows[train][:, [i for i in range(4) if i not in there]].any()
    assert not rows[train][:, 5].any(), "no value to learn from, so nothing is made of it"


def test_names_that_hardly_differ_or_cannot_be_printed(tmp_path):
    long = "a very long name of a class that goes on and on, number "
    place = table_of(
        tmp_path / "t.csv",
        {
            "x\ny" + "z" * 90: COUNTING,
            "v": [str(10 * (i % 6)) for i in range(60)],
            "w": ["Ulm", "ulm"] * 30,
            "y": [long + "1", long + "2", "Cat", "cat", "big\ncat", "\x1b[2J"] * 10,
        },
    )
    samples = Table(file=str(place), target="y").open()
    said = " ".join(samples.warnings)
    assert "the classes 'Cat', 'cat' count as different" in said
    assert "column 'w': 'Ulm', 'ulm' count as different words" in said
    done = mapsto("adapt", place, "--target", "y", "--exclude", "w", "--out", tmp_path / "o", code=0)
    assert "  big\\ncat: 10 rows\n" in done.out
    assert "  \\u001b[2J: 10 rows\n" in done.out
    assert "  a very long name of a clas… on, number 2: 10 rows\n" in done.out
    assert max(len(line) for line in done.out.splitlines() if "rows" in line) < 60
    rows = mapsto("predict", tmp_path / "o", place, code=0).out.splitlines()
    assert len(rows) == 60
    assert long + "2" in {
        row["label"] for row in json.loads(mapsto("predict", tmp_path / "o", place, "--json", code=0).out)
    }


def test_many_classes_take_few_lines(tmp_path):
    place = table_of(tmp_path / "t.csv", {"x": COUNTING, "y": [f"kind {i % 30}" for i in range(60)]})
    out = mapsto("adapt", place, "--target", "y", "--out", tmp_path / "o", code=0).out
    assert "… and 18 more classes, 2 to 2 rows each" in out
    assert len(out.splitlines()) == 15 + 6, "a title, a head and four ways"


def test_hints_of_unequal_classes_can_be_typed(tmp_path):
    rng = np.random.default_rng(0)
    y = ["many"] * 100 + ["few"] * 5
    x = [f"{rng.normal(2 * (name == 'few')):.3f}" for name in y]
    place = table_of(tmp_path / "my t.csv", {"x": x, "y": y})
    ctx = Context()
    adapt_to_table(place, "y", ctx)
    typed = next(note for note in ctx.notes if "hardly counts" in note).split("`")[1]
    assert typed.endswith("--target y --class-weights balanced")
    words = [*shlex.split(typed)[1:], "--out", tmp_path / "o", "--json"]
    assert "hardly counts" not in json.dumps(json.loads(mapsto(*words, code=0).out)["notes"])
    with pytest.raises(SpecError, match="--class-weights is for classes"):
        adapt_to_table(table_of(place, {"x": x, "y": x}), "y", Context(), class_weights="balanced")


def test_files_as_spreadsheets_write_them(tmp_path):
    """A line that names the separator, nameless columns and cells at the end, words with blanks around them in Parquet."""
    (tmp_path / "t.csv").write_text(
        "\ufeffsep=;\nx;y;;\n1,5;a;;\n2,5;b\n3,5;a;;;;\n;;;\n".replace("b\n", "b;;\n"), encoding="utf-8"
    )
    table = read_table(tmp_path / "t.csv", ("y",))
    assert (table.names, len(table), table.decimal_commas) == (("x", "y"), 3, {0, 1})
    (tmp_path / "u.csv").write_text('x,y\n"1,234",a\n', encoding="utf-8")
    thousand = read_table(tmp_path / "u.csv", ())
    assert (thousand.notes, thousand.decimal_commas, thousand.unsure) == ((), set(), set())
    (tmp_path / "u.csv").write_text("x;y\n1\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 1 has 1 cell where the header has 2"):
        read_table(tmp_path / "u.csv", ())
    (tmp_path / "u.csv").write_text("x;y\n1;a;2\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 1 has 3 cells where the header has 2"):
        read_table(tmp_path / "u.csv", ())
    (tmp_path / "v.csv").write_text(",,y\n1,2,a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"2 columns have no name \(1, 2 from the left\)"):
        read_table(tmp_path / "v.csv", ())
    (tmp_path / "w.csv").write_bytes(b"PK\x03\x04 a workbook")
    with pytest.raises(DataError, match="Excel workbook or another archive, not a table in text; save it as CSV"):
        read_table(tmp_path / "w.csv", ())
    pyarrow.parquet.write_table(pyarrow.table({"w": ["Ulm ", "Ulm", " Rom"]}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", ()).columns[0].tolist() == ["Ulm", "Ulm", "Rom"]


# ------------------------------------------------------------------------------------------------------------ scikit-learn


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wine", "breast_cancer", "iris", "digits"])
def test_never_more_than_a_standard_error_behind_scaled_logistic_regression(name, tmp_path):
    import sklearn.datasets
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    bunch = getattr(sklearn.datasets, f"load_{name}")()
    x, y = bunch.data.copy(), bunch.target
    if name == "breast_cancer":
        x[np.random.default_rng(0).random(x.shape) < 0.05] = np.nan
    header = ",".join([*(f"f{i}" for i in range(x.shape[1])), "label"])
    ours = theirs = 0
    for number, (train, test) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)):
        files = []
        for part, rows in (("train", train), ("test", test)):
            place = tmp_path / f"{part}{number}.csv"
            with place.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(header.split(","))
                writer.writerows([*("" if np.isnan(v) else v for v in x[row]), f"class {y[row]}"] for row in rows)
            files.append(place)
        package, _ = adapt_to_table(files[0], "label", Context(seed=0))
        found = labels(unpacked(package, tmp_path / f"package{number}"), files[1])
        ours += sum(label == f"class {y[row]}" for label, row in zip(found, test, strict=True))
        peer = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=1000)).fit(
            x[train], y[train]
        )
        theirs += int((peer.predict(x[test]) == y[test]).sum())
    share = theirs / len(y)
    error = np.sqrt(share * (1 - share) / len(y))
    figures = f"{name}: mapsto {100 * ours / len(y):.2f} %, scikit-learn {100 * share:.2f} ± {100 * error:.2f} %"
    assert ours / len(y) >= share - error, figures
