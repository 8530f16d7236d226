"""Damaged and hostile variants of a file: of a tree's values, of a text, and of bytes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, cast

import yaml

__all__ = ["mutated_bytes", "mutated_json", "mutated_safetensors", "mutated_text", "mutated_tree", "mutated_yaml"]

_DEEP: Any = json.loads("[" * 60 + "]" * 60)

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    0.5,
    -0.0,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    float("-inf"),
    2**31,
    2**63,
    -(2**63),
    10**30,
    10**400,
    "",
    " ",
    "$",
    "$teacher",
    "$data",
    "nan",
    "1e999",
    "0x10",
    "..",
    "../../../../etc/passwd",
    "/etc/passwd",
    "/dev/zero/x",
    "a\0b",
    "\x1b[31mred\x1b[0m",
    "\u202egnp.exe",
    "\ud7ff\U0001f600é",
    "x" * 5000,
    "os:system",
    "mapsto.nn.networks.conv4:conv4.__globals__",
    "__class__",
    "%s{0}{x!r}",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": {"b": {"c": 1}}},
    {"fork": {}},
    {"fork": {"a": []}},
    {"as": "x"},
    {"observe": {}},
    [{"networks.mlp": {}}],
    {"networks.mlp": {}},
    {"digits": {}},
    list(range(50)),
    _DEEP,
)
"""What takes a value's place."""

Path = tuple[str | int, ...]


def _places(tree: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(tree, dict):
        for key, value in cast("dict[Any, Any]", tree).items():
            yield from _places(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(cast("list[Any]", tree)):
            yield from _places(value, (*path, index))


def _at(tree: Any, path: Path) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def mutated_tree(tree: Any, rng: random.Random) -> Any:
    """A copy of a tree of JSON values with one to three of its parts replaced, removed, renamed, moved or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = [path for path in _places(tree) if path]
        if not places:
            return tree
        path = rng.choice(places)
        parent, key = _at(tree, path[:-1]), path[-1]
        kind = rng.choice(("value", "value", "value", "remove", "rename", "repeat", "move", "wrap", "bend"))
        if kind == "value":
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        elif kind == "remove":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict):
            name = rng.choice(
                [f"{key}x", str(key)[:-1], "", 1, None, True, 0.5, str(key).upper(), "as", "fork", "data"]
            )
            parent[name] = parent.pop(key)
        elif kind == "repeat" and isinstance(parent, list):
            parent.insert(rng.randrange(len(cast("list[Any]", parent)) + 1), copy.deepcopy(parent[cast("int", key)]))
        elif kind == "move":
            parent[key] = copy.deepcopy(_at(tree, rng.choice(places)))
        elif kind == "wrap":
            parent[key] = rng.choice([[parent[key]], {"x": parent[key]}, {"data": parent[key]}, [parent[key]] * 2])
        elif kind == "bend" and isinstance(parent[key], (int, float)):
            more = parent[key] + 0.5 if abs(parent[key]) < 1e300 else -0.5
            parent[key] = rng.choice([-parent[key], parent[key] * 10**6, str(parent[key]), more])
        elif kind == "bend" and isinstance(parent[key], str):
            parent[key] = _bent(parent[key], rng)
    return tree


def _bent(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    return rng.choice(
        [text[:at], text[at:], text[:at] + "\0" + text[at:], text[:at] + "é" + text[at:], text * 2, f"-{text}"]
    )


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes cut short, flipped, overwritten, repeated, or with some inserted."""
    at = rng.randrange(len(data) + 1)
    length = rng.choice((1, 2, 8, 64))
    kind = rng.randrange(6)
    if kind == 0:
        return data[:at]
    if kind == 1 and data:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 4, 32))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == 2:
        return data[:at] + rng.randbytes(length) + data[at + length :]
    if kind == 3:
        return data[:at] + data[at + length :]
    if kind == 4:
        return (
            data[:at] + rng.choice((b"\0", b"\xff", b"\n", b"\x1b[2J", "é".encode(), rng.randbytes(length))) + data[at:]
        )
    return data[:at] + data[at : at + length] * 3 + data[at + length :]


def mutated_safetensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with its header's JSON mutated, and of the right length, or its bytes."""
    if rng.random() < 0.4:
        return mutated_bytes(data, rng)
    end = 8 + int.from_bytes(data[:8], "little")
    header = mutated_json(data[8:end].decode(), rng)
    return len(header).to_bytes(8, "little") + header + data[end:]


_ODD = (
    *("!!python/object/apply:os.system [x]", "!!binary aGk=", "!!set {a}", "!!timestamp 2001-01-01", "2001-01-01"),
    *("!!omap [a: 1]", "&a [*a]", "*none", "<<: {a: 1}", "? [a, b]\n: c", "0o17", "1_000", "1:30", "=", "~", ".nan"),
    *(".inf", "{[a]: b}", "{{a: 1}: b}", "&x {y: *x}", "!!float x", "!!int x", "!!bool x", "!!timestamp x"),
    *("!!binary x", "!!null x", "|", ">", "- ", "%YAML 9.9", "---", "..."),
)


def mutated_text(text: str, rng: random.Random) -> str:
    """A YAML text with a line repeated, moved, dropped or indented, or with anchors, aliases, tags and other odd syntax."""
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    line = lines[at]
    key, colon, rest = line.partition(":")
    changed: Callable[[], list[str]] = rng.choice(
        (
            lambda: [line, line],
            lambda: [],
            lambda: [f"{' ' * rng.choice((1, 2, 4))}{line}"],
            lambda: [line.strip()],
            lambda: [f"{key}{colon} {rng.choice(_ODD)}"],
            lambda: [line, rng.choice(_ODD)],
            lambda: [f"{key}{colon} &a{rest}", f"{key}{colon} *a"],
            lambda: [line.replace("{", "[", 1)],
            lambda: [line.replace("}", "", 1)],
            lambda: [line.replace(" ", "\t")],
            lambda: [line.replace(":", "", 1)],
            lambda: [f"{key}{colon} {'[' * 500}"],
            lambda: [f"{key}{colon} {'[' * 3000}1{']' * 3000}"],
        )
    )
    return "\n".join([*lines[:at], *changed(), *lines[at + 1 :]]) + "\n"


def mutated_yaml(text: str, rng: random.Random) -> bytes:
    """A YAML document: its tree, its text or its bytes changed."""
    kind = rng.randrange(4)
    if kind < 2:
        tree = mutated_tree(yaml.safe_load(text), rng)
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode()
    return mutated_text(text, rng).encode() if kind == 2 else mutated_bytes(text.encode(), rng)


def mutated_json(text: str, rng: random.Random) -> bytes:
    """A JSON document: its tree or its bytes changed."""
    if rng.randrange(4):
        return json.dumps(mutated_tree(json.loads(text), rng), allow_nan=True).encode()
    return mutated_bytes(text.encode(), rng)
