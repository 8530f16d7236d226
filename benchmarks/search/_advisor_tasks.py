"""The tasks of `advisor`: small, with few labels, of several domains; each is written as files, as a user would have them.

Images are folders of PNG files (dark ink on white, where they are of characters), texts and tables are CSV files, each in three parts:
``train`` to learn from, ``validation`` to choose a recipe by, and ``test``, which decides nothing. A stream is one CSV file: its first
third is what a recipe is chosen by.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapsto import datasets, discovery
from mapsto.data.io.download import locate

VERSION = 2
"""Raised whenever a task's files would come out otherwise."""
EVENTS = 3000
"""Of a stream."""


@dataclass(frozen=True)
class Task:
    """One task: where it is from, and how many labels there are."""

    name: str
    domain: str
    kind: str
    """``images``, ``texts``, ``table`` or ``stream``."""
    write: Callable[[Task, Path], None]
    of: Mapping[str, Any] = field(default_factory=dict[str, Any])
    train: int = 0
    """Labelled examples a class."""
    validation: int = 0
    test: int = 0
    """Examples a class at most."""


def written(task: Task, folder: Path) -> Path:
    """The folder of a task's files, written once."""
    place = folder / f"{task.name}-{VERSION}"
    if not place.exists():
        partial = place.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        task.write(task, partial)
        partial.rename(place)
    return place


def data_of(task: Task, place: Path) -> dict[str, Any]:
    """The data of a recipe: of a stream ``events``, else ``examples``, ``validation`` and ``test``."""
    if task.kind == "stream":
        return {"events": {"csv": {"file": str(place / "events.csv"), "target": "target"}}}
    parts = {"examples": "train", "validation": "validation", "test": "test"}
    if task.kind == "images":
        return {name: {"images": {"folder": str(place / part)}} for name, part in parts.items()}
    of = "text" if task.kind == "texts" else "table"
    return {name: {of: {"file": str(place / f"{part}.csv"), "target": "target"}} for name, part in parts.items()}


# ------------------------------------------------------------------------------------------------------------------------- parts


def _parts(labels: NDArray[Any], task: Task, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """The numbers of the samples of each part; what is there of a class is shared out in the order of the parts."""
    rng = np.random.default_rng([seed, *task.name.encode()])
    found: dict[str, list[NDArray[np.int64]]] = {"train": [], "validation": [], "test": []}
    for label in np.unique(labels):
        order = rng.permutation(np.flatnonzero(labels == label))
        room = len(order) - 2
        first = min(task.train, max(room // 2, 2))
        second = min(task.validation, max((len(order) - first) // 3, 1))
        found["train"].append(order[:first])
        found["validation"].append(order[first : first + second])
        found["test"].append(order[first + second :][: task.test])
    return {name: np.sort(np.concatenate(each)) for name, each in found.items()}


def _write_images(
    task: Task, place: Path, images: NDArray[np.uint8], labels: NDArray[Any], names: Sequence[str]
) -> None:
    """Images (N, C, H, W) as PNG files in a folder a class."""
    from PIL import Image

    for part, numbers in _parts(labels, task).items():
        for number in numbers.tolist():
            folder = place / part / names[int(labels[number])].replace("/", "_").replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = images[number]
            Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(
                folder / f"{number:05d}.png"
            )


def _write_rows(
    task: Task, place: Path, rows: Sequence[Sequence[Any]], labels: Sequence[str], names: Sequence[str]
) -> None:
    for part, numbers in _parts(np.array(labels), task).items():
        with (place / f"{part}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow([*names, "target"])
            writer.writerows([*rows[number], labels[number]] for number in numbers.tolist())


# ------------------------------------------------------------------------------------------------------------------------ images


def _omniglot(task: Task, place: Path) -> None:
    samples = datasets.omniglot(split="evaluation", size=56).open()
    _characters(task, place, samples, lambda name: name.split("/")[0] == task.of["alphabet"], lambda n: n.split("/")[1])


def _glyphs(task: Task, place: Path) -> None:
    samples = datasets.glyphs(split="test", size=56, per_class=50).open()
    _characters(task, place, samples, lambda name: name.split()[0] == task.of["script"], lambda name: name)


def _characters(
    task: Task, place: Path, samples: Any, belongs: Callable[[str], bool], short: Callable[[str], str]
) -> None:
    numbers = [number for number, name in enumerate(samples.classes) if belongs(name)][: task.of["classes"]]
    kept = np.isin(samples.labels, numbers)
    labels = np.searchsorted(numbers, samples.labels[kept])
    _write_images(
        task, place, 255 - samples.inputs[kept], labels, [short(samples.classes[number]) for number in numbers]
    )


def _digits(task: Task, place: Path) -> None:
    samples = datasets.digits().open()
    numbers = [samples.classes.index(name) for name in task.of["classes"]]
    kept = np.isin(samples.labels, numbers)
    labels = np.searchsorted(numbers, samples.labels[kept])
    _write_images(task, place, 255 - samples.inputs[kept], labels, task.of["classes"])


def _cifar100(task: Task, place: Path) -> None:
    samples = datasets.cifar100(split="train").open()
    numbers = sorted(samples.classes.index(name) for name in task.of["classes"])
    kept = np.isin(samples.labels, numbers)
    labels = np.searchsorted(numbers, samples.labels[kept])
    _write_images(task, place, samples.inputs[kept], labels, [samples.classes[number] for number in numbers])


# ------------------------------------------------------------------------------------------------------------------------- texts


def _banking77(task: Task, place: Path) -> None:
    rows: list[tuple[str, str]] = []
    for part in ("train", "test"):
        path = locate(f"text/banking77_{part}.csv", what="Banking77")
        rows += [(row["text"], row["category"]) for row in csv.DictReader(path.open(encoding="utf-8"))]
    _texts(task, place, rows)


def _clinc150(task: Task, place: Path) -> None:
    tree = json.loads(locate("text/clinc150.json", what="CLINC150").read_text(encoding="utf-8"))
    _texts(task, place, [tuple(row) for part in ("train", "val", "test") for row in tree[part]])


def _texts(task: Task, place: Path, rows: Sequence[tuple[str, str]]) -> None:
    kept = list(dict.fromkeys((text, label) for text, label in rows if label in task.of["classes"]))
    _write_rows(task, place, [[text] for text, _ in kept], [label for _, label in kept], ["text"])


# ------------------------------------------------------------------------------------------------------------------------ tables


def _of_sklearn(name: str) -> tuple[NDArray[Any], list[str]]:
    import sklearn.datasets

    data: Any = getattr(sklearn.datasets, f"load_{name}")()
    target = data.target
    if name == "diabetes":
        target = np.where(target > np.median(target), "high", "low")
    return np.asarray(data.data), [f"class {label}" for label in target.tolist()]


def _river(file: str) -> bytes:
    from importlib.util import find_spec

    spec = find_spec("river")
    folder = (spec.submodule_search_locations or [""])[0] if spec is not None else ""
    return (Path(folder) / "datasets" / file).read_bytes()


def _unzipped(file: str) -> str:
    with zipfile.ZipFile(io.BytesIO(_river(file))) as archive:
        return archive.read(archive.namelist()[0]).decode()


def _csv_rows(text: str, target: str, drop: Sequence[str] = ()) -> tuple[NDArray[Any], list[str]]:
    rows = list(csv.DictReader(io.StringIO(text)))
    names = [name for name in rows[0] if name not in (target, *drop)]
    x = np.array([[float(row[name]) if _is_number(row[name]) else row[name] for name in names] for row in rows], object)
    return x, [f"class {row[target]}" for row in rows]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _bananas() -> tuple[NDArray[Any], list[str]]:
    lines = [line.split() for line in _unzipped("banana.zip").splitlines() if line.strip()]
    x = np.array([[float(value.partition(":")[2]) for value in line[1:]] for line in lines])
    return x, [f"class {line[0]}" for line in lines]


def _shared(name: str, target: str) -> tuple[NDArray[Any], list[str]]:
    return _csv_rows(locate(f"streams/{name}.csv", what=name).read_text(encoding="utf-8"), target)


_FILES: Mapping[str, Callable[[], tuple[NDArray[Any], list[str]]]] = {
    "phishing": lambda: _csv_rows(gzip.decompress(_river("phishing.csv.gz")).decode(), "is_phishing"),
    "bananas": _bananas,
    "segments": lambda: _csv_rows(_unzipped("segment.csv.zip"), "category"),
    "shuttle": lambda: _csv_rows(gzip.decompress(_river("shuttle.csv.gz")).decode(), "anomaly"),
    "electricity": lambda: _shared("electricity", "class"),
    "weather": lambda: _shared("weather", "target"),
}


def _table(task: Task, place: Path) -> None:
    name = task.of["name"]
    x, labels = _FILES[name]() if name in _FILES else _of_sklearn(name)
    columns = [f"column {number}" for number in range(x.shape[1])]
    _write_rows(task, place, x.tolist(), labels, columns)


def _drawn(task: Task, place: Path) -> None:
    """Made-up tables: the shapes that rules of different bent are good at."""
    from sklearn import datasets as made

    name, seed = task.of["name"], 0
    makers: dict[str, Callable[[], Any]] = {
        "moons": lambda: made.make_moons(1000, noise=0.25, random_state=seed),
        "circles": lambda: made.make_circles(1000, noise=0.12, factor=0.5, random_state=seed),
        "blobs": lambda: made.make_blobs(1000, n_features=8, centers=6, cluster_std=4.0, random_state=seed),
        "quantiles": lambda: made.make_gaussian_quantiles(n_samples=1000, n_features=5, n_classes=3, random_state=seed),
        "hastie": lambda: made.make_hastie_10_2(1000, random_state=seed),
        "wide": lambda: made.make_classification(1000, 60, n_informative=6, n_classes=3, random_state=seed),
        "clusters": lambda: made.make_classification(
            1200,
            10,
            n_informative=8,
            n_redundant=0,
            n_classes=4,
            n_clusters_per_class=3,
            class_sep=1.5,
            random_state=seed,
        ),
        "linear": lambda: made.make_classification(
            1000, 20, n_informative=15, n_clusters_per_class=1, random_state=seed
        ),
    }
    x, y = makers[name]()
    columns = [f"column {number}" for number in range(x.shape[1])]
    _write_rows(task, place, x.round(5).tolist(), [f"class {int(label)}" for label in y], columns)


def _stream(task: Task, place: Path) -> None:
    if "generator" in task.of:
        fields = {key: value for key, value in task.of.items() if key not in ("generator", "parts", "at")}
        find = discovery.find
        if "parts" in task.of:
            at, parts = task.of["at"], task.of["parts"]
            made = [find("streams", name)(events=EVENTS, **own) for name, own in parts]
            stream = find("streams", "drift")(streams=made, at=at)
        else:
            stream = find("streams", task.of["generator"])(events=EVENTS, **fields)
        blocks = list(stream.open(size=1024))
        names = list(blocks[0].x)
        rows = list(zip(*(np.concatenate([block.x[name] for block in blocks]).tolist() for name in names), strict=True))
        labels = np.concatenate([block.y for block in blocks]).tolist()
    else:
        x, labels = _FILES[task.of["name"]]()
        x, labels = x[: task.of.get("last", EVENTS)], labels[: task.of.get("last", EVENTS)]
        x, labels = x[-EVENTS:], labels[-EVENTS:]
        names, rows = [f"column {number}" for number in range(x.shape[1])], x.tolist()
    with (place / "events.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "target"])
        writer.writerows([*row, label] for row, label in zip(rows, labels, strict=True))


# ------------------------------------------------------------------------------------------------------------------- the tasks

_ALPHABETS = {
    "Malayalam": (20, 5),
    "Tibetan": (12, 8),
    "Glagolitic": (20, 10),
    "Ge_ez": (15, 5),
    "Tengwar": (10, 10),
    "Angelic": (20, 8),
    "Keble": (8, 5),
    "Gurmukhi": (24, 6),
}
"""Alphabet → characters and labels of each."""
_SCRIPTS = {
    "ARMENIAN": (20, 5),
    "LAO": (15, 10),
    "HEBREW": (10, 20),
    "TIFINAGH": (20, 8),
    "NKO": (12, 5),
    "DINGBAT": (8, 15),
}
_SUPERCLASSES = {
    "fish": ("aquarium_fish flatfish ray shark trout", 10),
    "flowers": ("orchid poppy rose sunflower tulip", 20),
    "containers": ("bottle bowl can cup plate", 5),
    "furniture": ("bed chair couch table wardrobe", 40),
    "insects": ("bee beetle butterfly caterpillar cockroach", 10),
    "carnivores": ("bear leopard lion tiger wolf", 25),
    "scenes": ("cloud forest mountain plain sea", 5),
    "vehicles": ("bicycle bus motorcycle pickup_truck train lawn_mower rocket streetcar tank tractor", 15),
}
_DIGITS = {"all": ("0 1 2 3 4 5 6 7 8 9", 10), "even": ("0 2 4 6 8", 5), "odd": ("1 3 5 7 9", 30)}
_BANKING = {
    "cards": (
        "card_arrival card_linking card_about_to_expire card_acceptance card_delivery_estimate card_not_working card_swallowed "
        "contactless_not_working lost_or_stolen_card activate_my_card",
        5,
    ),
    "transfers": (
        "beneficiary_not_allowed cancel_transfer declined_transfer failed_transfer pending_transfer receiving_money "
        "transfer_fee_charged transfer_into_account transfer_not_received_by_recipient transfer_timing",
        10,
    ),
    "top_ups": (
        "automatic_top_up pending_top_up top_up_by_bank_transfer_charge top_up_by_card_charge top_up_by_cash_or_cheque "
        "top_up_failed top_up_limits top_up_reverted topping_up_by_card",
        20,
    ),
    "cash": (
        "atm_support cash_withdrawal_charge cash_withdrawal_not_recognised declined_cash_withdrawal pending_cash_withdrawal "
        "wrong_amount_of_cash_received",
        8,
    ),
    "identity": (
        "age_limit edit_personal_details passcode_forgotten terminate_account unable_to_verify_identity verify_my_identity "
        "verify_source_of_funds verify_top_up why_verify_identity",
        30,
    ),
}
_CLINC = {
    "banking": ("transfer transactions balance freeze_account pay_bill bill_balance bill_due interest_rate routing", 5),
    "credit_cards": (
        "replacement_card_duration expiration_date damaged_card improve_credit_score report_lost_card card_declined apr "
        "credit_limit_change rewards_balance",
        10,
    ),
    "kitchen": (
        "recipe restaurant_reviews calories nutrition_info restaurant_suggestion ingredients_list ingredient_substitution "
        "cook_time food_last meal_suggestion",
        5,
    ),
    "home": (
        "what_song play_music todo_list_update reminder reminder_update calendar_update calendar shopping_list",
        20,
    ),
    "commute": (
        "mpg oil_change_how jump_start uber schedule_maintenance last_maintenance gas_type traffic directions",
        8,
    ),
    "travel": (
        "plug_type travel_notification translate flight_status international_visa timezone exchange_rate vaccines",
        30,
    ),
    "work": ("direct_deposit pto_request taxes payday w2 pto_balance meeting_schedule rollover_401k insurance", 15),
    "small_talk": (
        "greeting goodbye tell_joke how_old_are_you what_is_your_name who_made_you fun_fact are_you_a_bot do_you_have_pets "
        "meaning_of_life",
        5,
    ),
}
_TABLES = {"iris": 5, "wine": 8, "breast_cancer": 20, "diabetes": 50, "digits": 10}
_RECORDS = {"phishing": 25, "bananas": 50, "segments": 15, "electricity": 40, "weather": 30, "shuttle": 10}
_STREAMS = {
    "phishing": {},
    "bananas": {},
    "segments": {},
    "electricity": {},
    "weather": {},
    "electricity late": {"last": 30000},
}
_GENERATED: dict[str, dict[str, Any]] = {
    "sea": {"generator": "sea", "concept": 1000},
    "sea noisy": {"generator": "sea", "concept": 3000, "noise": 0.3, "seed": 1},
    "agrawal": {"generator": "agrawal", "seed": 2},
    "hyperplane": {"generator": "hyperplane", "seed": 3},
    "rbf": {"generator": "rbf", "seed": 4},
}
_DRAWN = {
    "moons": 15,
    "circles": 30,
    "blobs": 8,
    "quantiles": 40,
    "hastie": 50,
    "wide": 20,
    "clusters": 25,
    "linear": 10,
}
_DRIFTS: dict[str, dict[str, Any]] = {
    "rules": {
        "generator": "drift",
        "parts": [("agrawal", {"functions": [n], "seed": n}) for n in (1, 5, 1)],
        "at": [1000, 2000],
    },
    "late rules": {
        "generator": "drift",
        "parts": [("agrawal", {"functions": [n], "seed": n}) for n in (2, 4)],
        "at": [1800],
    },
    "fast kernels": {"generator": "rbf", "speed": 0.001, "seed": 5, "dimensions": 6, "classes": 3, "kernels": 15},
    "still kernels": {"generator": "rbf", "drifting": 0, "seed": 6, "dimensions": 4, "classes": 4, "kernels": 20},
    "turning plane": {"generator": "hyperplane", "magnitude": 0.01, "drifting": 5, "seed": 7},
    "still plane": {"generator": "hyperplane", "drifting": 0, "noise": 0.15, "dimensions": 20, "seed": 8},
}


def _all() -> dict[str, list[Task]]:
    def images(domain: str, write: Any, of: Mapping[str, tuple[Any, int]], key: str = "") -> list[Task]:
        found = list[Task]()
        for name, (classes, train) in of.items():
            named = {key: name, "classes": classes} if isinstance(classes, int) else {"classes": classes.split()}
            count = classes if isinstance(classes, int) else len(classes.split())
            plain = name.lower().replace("-", "_")
            found.append(Task(f"{domain}_{plain}", domain, "images", write, named, train, *_room(domain, count)))
        return found

    def texts(domain: str, write: Any, of: Mapping[str, tuple[str, int]]) -> list[Task]:
        return [
            Task(f"{domain}_{name}", domain, "texts", write, {"classes": classes.split()}, train, 12, 30)
            for name, (classes, train) in of.items()
        ]

    def tables(domain: str, of: Mapping[str, int]) -> list[Task]:
        return [Task(f"{domain}_{name}", domain, "table", _table, {"name": name}, n, 40, 200) for name, n in of.items()]

    return {
        "omniglot": images("omniglot", _omniglot, _ALPHABETS, "alphabet"),
        "glyphs": images("glyphs", _glyphs, _SCRIPTS, "script"),
        "cifar100": images("cifar100", _cifar100, _SUPERCLASSES),
        "digits": images("digits", _digits, _DIGITS),
        "banking77": texts("banking77", _banking77, _BANKING),
        "clinc150": texts("clinc150", _clinc150, _CLINC),
        "tables": tables("tables", _TABLES),
        "records": tables("records", _RECORDS),
        "drawn": [
            Task(f"drawn_{name}", "drawn", "table", _drawn, {"name": name}, train, 40, 200)
            for name, train in _DRAWN.items()
        ],
        "streams": [
            Task(f"streams_{name.replace(' ', '_')}", "streams", "stream", _stream, {"name": name.split()[0], **of})
            for name, of in _STREAMS.items()
        ],
        "generated": [
            Task(f"generated_{name.replace(' ', '_')}", "generated", "stream", _stream, of)
            for name, of in _GENERATED.items()
        ],
        "drifts": [
            Task(f"drifts_{name.replace(' ', '_')}", "drifts", "stream", _stream, of) for name, of in _DRIFTS.items()
        ],
    }


def _room(domain: str, classes: int) -> tuple[int, int]:
    """Validation and test examples a class: about 80 and 160 of a task, where there are so many."""
    most = 4 if domain == "omniglot" else 20
    return min(most, max(80 // classes, 4)), max(160 // classes, 6)


DOMAINS = _all()


def tasks() -> list[Task]:
    """All tasks, domains in turn, so that whatever part of the table is there is of all domains alike; what is cheap comes first."""
    order: list[tuple[float, float, int, Task]] = []
    for number, each in enumerate(DOMAINS.values()):
        for place, task in enumerate(each):
            pace = _PACE[task.kind]
            order.append(((place + 1) / pace, -pace, number, task))
    return [task for *_, task in sorted(order, key=lambda entry: entry[:3])]


_PACE = {"images": 1.0, "texts": 1.6, "table": 8.0, "stream": 8.0}
"""How many tasks of a domain come in the time of one."""
