"""Damaged and hostile files are the user's error: exit code 2 and a message, never a traceback or "a fault of mapsto"."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.mutations import mutated_bytes, mutated_json, mutated_safetensors, mutated_yaml

from mapsto import networks
from mapsto.cli.adapt.images import find_learner
from mapsto.context import Context
from mapsto.data.io.cache import cached_array
from mapsto.errors import MapstoError, SpecError, StoreError
from mapsto.kinds import Adaptation
from mapsto.mappings.networks.checkpoint import Checkpoint
from mapsto.nn.network import serialization
from mapsto.recipe.reader import load_recipe, parse_recipe, shipped_recipes
from mapsto.recipe.yaml_text import read_yaml
from mapsto.store import Store
from mapsto.store.state import decode_state, encode_state

FEW = pytest.param(200, id="200")
MANY = pytest.param(20_000, id="20000", marks=pytest.mark.slow)

RECIPE = """\
schema: 1
name: small
title: A text
seed: 3
optional: [digits]
data:
  digits: {digits: {split: train}}
  tasks: {episodes: {data: $digits, ways: 3}}
steps:
  - networks.conv4: {channels: 1, size: 28, width: [8, 8, 8, 8]}
  - train.supervised: {data: $digits, epochs: 4}
    as: teacher
    observe: {digits: {evaluate.accuracy: {data: $digits}}}
  - fork:
      mild: [{prune.magnitude: {macs: 0.5}}, {distill.logits: {teacher: $teacher, data: $digits}, as: student}]
      hard: {prune.magnitude: {macs: 0.2}}
  - choose.best: {by: {evaluate.accuracy: {data: $digits}}}
quick: {teacher.epochs: 1, student.epochs: 1, digits.split: test}
targets: [{what: right, metric: choose.best.accuracy.accuracy, goal: ">= 90"}]
"""


@pytest.mark.parametrize("number", [FEW, MANY])
def test_a_damaged_recipe_is_the_users_error(number: int, tmp_path: Path) -> None:
    rng = random.Random(number)
    texts = [RECIPE]
    if number > 200:
        texts += [path.read_text(encoding="utf-8") for path in shipped_recipes().values()]
    file = tmp_path / "recipe.yaml"
    refused = 0
    for _ in range(number):
        file.write_bytes(mutated_yaml(rng.choice(texts), rng))
        try:
            load_recipe(file, quick=rng.random() < 0.5)
        except MapstoError as error:
            refused += error.exit_code == 2 and str(file) in str(error)
        else:
            refused += 1 / number  # a change that does no harm
    assert number * 0.6 < refused < number


@pytest.mark.parametrize("number", [FEW, MANY])
def test_a_damaged_learner_is_the_users_error(number: int, tmp_path: Path) -> None:
    rng = random.Random(number)
    network = dataclasses.replace(networks.mlp(widths=(3,), inputs=4)(), assets={"words": b"a b"})
    network = dataclasses.replace(network, adaptation=Adaptation(method="centroid"))
    files = serialization.saved(network)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    refused = 0
    for _ in range(number):
        name = rng.choice(("network.json", "network.json", "network.json", "tensors.safetensors"))
        whole = files[name]
        (tmp_path / name).write_bytes(
            mutated_json(whole.decode(), rng) if name == "network.json" else mutated_bytes(whole, rng)
        )
        try:
            serialization.load(tmp_path)
        except MapstoError as error:
            refused += 1 if error.exit_code == 2 else number
        (tmp_path / name).write_bytes(whole)
    assert number * 0.4 < refused < number


@pytest.mark.parametrize("number", [FEW, MANY])
def test_a_damaged_checkpoint_is_the_users_error(number: int, tmp_path: Path) -> None:
    rng = random.Random(number)
    tensors = {"layer.weight": torch.ones(3, 2), "layer.bias": torch.zeros(3)}
    file = tmp_path / "w.pt"
    torch.save(tensors, file)
    theirs = file.read_bytes()
    state = encode_state({"step": 3, "rate": 0.5, "tensors": tensors, "bytes": b"x"})[32:]
    refused = 0
    for _ in range(number // 2):
        file.write_bytes(mutated_bytes(theirs, rng))
        body = mutated_bytes(state, rng)
        for read in (
            lambda: Checkpoint(factory="a.b:c", file=str(file))._tensors(),
            lambda body=body: decode_state(hashlib.sha256(body).digest() + body),
        ):
            try:
                read()
            except MapstoError as error:
                refused += 1 if error.exit_code == 2 else number
    assert number * 0.4 < refused < number


@pytest.mark.parametrize("number", [FEW, MANY])
def test_a_damaged_safetensors_file_is_the_users_error(number: int, tmp_path: Path) -> None:
    """As weights of someone's, which are read and put into the network; as a learner's; and as what the store keeps."""
    rng = random.Random(number)
    network = networks.mlp(widths=(3,), inputs=4)()
    learner, weights = serialization.saved(network), tmp_path / "w.safetensors"
    for name, content in learner.items():
        (tmp_path / name).write_bytes(content)
    save_file(dict(network.tensors), weights)
    whole, ctx = weights.read_bytes(), Context()
    theirs = Checkpoint(factory=network.arch.name, arguments=network.arch.arguments, file=str(weights), input=(4,))
    ctx.apply(theirs, None)
    store = Store(tmp_path / "store")
    digest = store.save(network)
    blobs = sorted(store.names("blobs"))
    refused = dict.fromkeys(("weights", "learner", "store"), 0)
    for _ in range(number // 3):
        weights.write_bytes(mutated_safetensors(whole, rng))
        (tmp_path / "tensors.safetensors").write_bytes(mutated_safetensors(learner["tensors.safetensors"], rng))
        blob = rng.choice(blobs)
        kept = blob.read_bytes()
        blob.write_bytes(mutated_bytes(kept, rng))
        reads = {
            "weights": lambda: ctx.apply(theirs, None),
            "learner": lambda: serialization.load(tmp_path),
            "store": lambda: Store(tmp_path / "store").load(digest).module(),
        }
        for name, read in reads.items():
            try:
                read()
            except MapstoError as error:
                refused[name] += 1 if error.exit_code == 2 else number
        blob.write_bytes(kept)
    assert all(number // 3 * 0.4 < count <= number // 3 for count in refused.values()), refused


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "assets/link", "assets/../../secret", "", "a\0b"])
def test_a_learner_reads_nothing_outside_its_folder(name: str, tmp_path: Path) -> None:
    network = dataclasses.replace(networks.mlp(widths=(3,), inputs=4)(), assets={"words": b"a b"})
    folder = tmp_path / "learner"
    (folder / "assets").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "assets" / "link").symlink_to(tmp_path / "secret")
    for file, content in serialization.saved(network).items():
        (folder / file).write_bytes(content)
    tree = json.loads((folder / "network.json").read_text())
    tree["assets"]["words"] = name
    (folder / "network.json").write_text(json.dumps(tree))
    with pytest.raises(StoreError, match="outside its folder"):
        serialization.load(folder)


def test_a_learner_is_checked_against_its_packages_manifest(tmp_path: Path) -> None:
    network = networks.mlp(widths=(3,), inputs=4)()
    folder = tmp_path / "learner"
    folder.mkdir()
    files = serialization.saved(network)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    with pytest.raises(StoreError, match="no package's manifest"):
        find_learner(tmp_path)
    hashes = {f"learner/{file}": {"sha256": hashlib.sha256(content).hexdigest()} for file, content in files.items()}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": hashes}))
    assert find_learner(tmp_path)[0].tensors.keys() == network.tensors.keys()
    content = bytearray(files["tensors.safetensors"])
    content[-1] ^= 1
    (folder / "tensors.safetensors").write_bytes(content)
    with pytest.raises(StoreError, match=r"'tensors\.safetensors' is not the file that was exported"):
        find_learner(tmp_path)
    del hashes["learner/tensors.safetensors"]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": hashes}))
    with pytest.raises(StoreError, match="is not named by the package's manifest"):
        find_learner(folder)


def test_a_changed_file_of_the_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path))
    assert cached_array("test", "key", lambda: np.arange(9)).sum() == 36
    path = tmp_path / "test" / "key.npy"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1  # an element, before the digest
    path.write_bytes(content)
    assert cached_array("test", "key", lambda: np.arange(9)).sum() == 36
    np.save(path, np.ones(9, np.int64))  # planted, without a digest
    assert cached_array("test", "key", lambda: np.arange(9)).sum() == 36
    assert cached_array("test", "key", lambda: np.zeros(9)).sum() == 36


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: " + "[" * 50_000, "nested too deeply"),
        ("steps:\n" + "".join(f"{' ' * depth}-\n" for depth in range(300)), "nested too deeply"),
        ("a: &a [*a]", "repeat too much"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("a: !!float x", "not valid YAML"),
        ("{[a]: b}", "unhashable"),
        ("- x\n" * (2 << 20), "longer than 4 MiB"),
    ],
)
def test_yaml_that_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_yaml(text, where="r.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("quick: {teacher", "quick: {1: 2, teacher"), r"r\.yaml:18:9: quick: label\.field → value, got 1"),
        (("networks.conv4: {channels: 1, size: 28, width: [8, 8, 8, 8]}", "networks.conv4: 5"), "fields of 'networks.conv4'"),
        (("seed: 3", "seed: true"), r"r\.yaml:4:1: seed: a whole number from 0 .*got True"),
        (("goal: \">= 90\"", "goal: .nan"), r"r\.yaml:19:11: a target is .*got 'goal: nan'"),
        (("by: {evaluate.accuracy: {data: $digits}}", "by: $teacher"), "should be a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(change: tuple[str, str], message: str) -> None:
    assert change[0] in RECIPE
    with pytest.raises(SpecError, match=message):
        parse_recipe(RECIPE.replace(*change), where="r.yaml", quick=True)
