"""Pages of the reference, made from the dataclasses: one for every mapping, data set and other named thing that discovery finds.

    python docs/_ext/reference.py FOLDER     writes them all

What a page says is what `mapsto show` says, with the class's own words, a recipe that can be loaded, and links to where the thing is
used. A group that discovery learns of gets its pages without a change here.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mapsto import discovery
from mapsto.cli.catalog import describe, groups, recipes, type_of
from mapsto.errors import SpecError
from mapsto.kinds import Dataset, Model, Network, Package, Report, Stream, Tasks
from mapsto.mapping import accepts, ref
from mapsto.recipe.nodes import from_plain
from mapsto.recipe.reader import marker_in, parse_recipe
from mapsto.recipe.writer import node_of

ROOT = Path(__file__).resolve().parents[2]
TITLES = {"mappings": "Mappings", "data": "Data sets", "streams": "Streams", "augment": "Augmentations"}
NAMESPACES = {"data": "datasets"}
"""Group → its namespace in Python, where that is not its name."""


class Named(NamedTuple):
    """Something that has a page."""

    group: str
    name: str

    @property
    def space(self) -> str:
        """Its family, or its group where that has none."""
        return self.name.rpartition(".")[0] if self.group == "mappings" else self.group

    @property
    def short(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def python(self) -> str:
        space = self.space if self.group == "mappings" else NAMESPACES.get(self.group, self.group)
        return f"{space}.{self.short}"

    @property
    def title(self) -> str:
        """As recipes name it; what has a group of its own with it."""
        return self.name if self.group in TITLES else self.python

    @property
    def page(self) -> str:
        """Its page within the reference, without suffix."""
        return f"{self.space}/{self.short}"


@cache
def named() -> tuple[Named, ...]:
    """Everything that has a page, family by family."""
    return tuple(Named(group, name) for group in groups() for name in discovery.entries(group))


def spaces() -> dict[str, list[Named]]:
    """Family, or group without families → what is in it."""
    found: dict[str, list[Named]] = {}
    for each in named():
        found.setdefault(each.space, []).append(each)
    return found


# --------------------------------------------------------------------------------------------------------------- prose


@cache
def _linked() -> dict[str, str]:
    """What is a link where it stands between backticks → its page within the site."""
    errors = {name: f"errors.md#{name.lower()}" for name in _errors()}
    return {each.name: f"reference/{each.page}.md" for each in named() if "." in each.name} | errors


def _errors() -> list[str]:
    import mapsto.errors

    return [name for name in mapsto.errors.__all__ if isinstance(getattr(mapsto.errors, name), type)]


def prose(text: str, *, root: str, cell: bool = False) -> str:
    """A docstring's paragraph as Markdown: code stays code, names become links, everything else is text.

    `root` leads from the page to the site's top; `cell` is for text in a table.

    >>> prose("See `prune.taylor`, p*q.", root="..")
    'See [`prune.taylor`](../reference/prune/taylor.md), p\\\\*q.'
    """

    def part(match: re.Match[str]) -> str:
        code = match[0]
        if not code.startswith("`"):
            return re.sub(r"([*_<\[\]])", r"\\\1", code)
        name = code.strip("`")
        if name in _linked():
            return f"[`{name}`]({root}/{_linked()[name]})"
        return code

    made = re.sub(r"``.+?``|`[^`]+`|[^`]+", part, text, flags=re.DOTALL)
    return " ".join(made.split()).replace("|", r"\|") if cell else made


def paragraphs(text: str, *, root: str) -> list[str]:
    """A docstring as blocks of Markdown, in order: paragraphs, lists, indented code, and examples as `pycon`."""
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if not block:
            continue
        if block.lstrip().startswith(">>>"):
            blocks.append(f"```pycon\n{textwrap.dedent(block)}\n```")
        elif block.startswith("    "):
            blocks.append(f"```text\n{textwrap.dedent(block)}\n```")
        else:
            blocks.append(prose(block, root=root))
    return blocks


# ---------------------------------------------------------------------------------------------------------------- parts


def shown(value: Any) -> str:
    """A default as a recipe has it."""
    if isinstance(value, dict) and len(value) > 4:
        return "its own defaults"
    if value is None or isinstance(value, (bool, int, float)):
        return f"`{json.dumps(value)}`"
    if isinstance(value, str) and re.fullmatch(r"[a-z_]+", value):
        return f"`{value}`"
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=10_000, allow_unicode=True)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def table(fields: list[dict[str, Any]], *, root: str) -> list[str]:
    """A row for each field: name, type and range, default, meaning."""
    lines = ["| field | type and range | default | what it is |", "|---|---|---|---|"]
    for entry in fields:
        default = "**required**" if entry["required"] else shown(entry["default"]).replace("|", r"\|")
        kind = type_of(entry["schema"]).replace("|", r"\|")
        lines.append(
            f"| `{entry['name']}` | {kind} | {default} | {prose(entry['description'], root=root, cell=True)} |"
        )
    return lines


def nested(schema: dict[str, Any], *, root: str) -> list[str]:
    """A table for each class of values that a field can hold."""
    lines: list[str] = []
    for name, part in schema.get("$defs", {}).items():
        required = part.get("required", ())
        rows = [
            {
                "name": key,
                "required": key in required,
                "default": value.get("default"),
                "schema": value,
                "description": " ".join(value.get("description", "").split()),
            }
            for key, value in part.get("properties", {}).items()
        ]
        if rows:
            lines += ["", f"### {name}", "", *table(rows, root=root)]
    return lines


def python_type(schema: dict[str, Any]) -> str:
    """A field's type as Python writes it.

    >>> python_type({"anyOf": [{"type": "number"}, {"type": "null"}]})
    'float | None'
    """
    if "x-kind" in schema:
        return str(schema["x-kind"]).capitalize()
    if "enum" in schema or "const" in schema:
        return f"Literal[{', '.join(map(repr, schema.get('enum', [schema.get('const')])))}]"
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(python_type(part) for part in schema["anyOf"]))
    kind = schema.get("type", schema.get("$ref", "Any").rpartition("/")[2])
    if kind == "array":
        parts = schema.get("prefixItems") or [schema.get("items") or {}]
        return f"tuple[{', '.join(map(python_type, parts))}{', ...' if schema.get('items') else ''}]"
    plain = {"integer": "int", "number": "float", "boolean": "bool", "string": "str", "null": "None", "object": "dict"}
    return plain.get(kind, kind)


def signature(each: Named, tree: dict[str, Any]) -> str:
    """How Python calls it."""
    space, _, short = each.python.rpartition(".")
    lines = [f"from mapsto import {space}", "", f"{space}.{short}("]
    for entry in tree["fields"]:
        default = entry["default"]
        text = "its own" if isinstance(default, dict) and len(default) > 4 else repr(default)
        lines.append(f"    {entry['name']}: {python_type(entry['schema'])}{'' if entry['required'] else ' = ' + text},")
    return "\n".join([*lines, ")"]) if tree["fields"] else f"{lines[0]}\n\n{space}.{short}()"


# -------------------------------------------------------------------------------------------------------------- example

IMAGES = {"digits": {"size": 16}}
BEGIN = {
    "images": IMAGES,
    "tasks": {"episodes": {"data": "$images", "ways": 5, "shots": 1, "queries": 5}},
    "texts": {"arrays": {"file": "token_ids.npz"}},
    "few": {"subset": {"data": "$images", "per_class": 4}},
    "pool": {"subset": {"data": "$images", "per_class": 4, "part": "rest"}},
    "rows": {"table": {"file": "table.csv", "target": "column"}},
    "without_0": {"fold": {"data": "$images", "folds": 2, "number": 0}},
    "without_1": {"fold": {"data": "$images", "folds": 2, "number": 1}},
}
NETWORK = {"networks.conv4": {"data": "$images", "classes": "data"}}
EMBEDDING = {"networks.conv4": {"data": "$images"}}
TRANSFORMER = {"networks.vit": {"data": "$images", "classes": "data", "patch": 4, "depth": 4}}
QUANTIZED = {"quantize.static": {"data": "$images"}}
_BERT = {"model_type": "bert", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {"networks.hf_text": {"configuration": _BERT, "length": 16}}
BEFORE: dict[str, list[dict[str, Any]]] = {
    "adapt.learner": [EMBEDDING, {"meta.protonet": {"tasks": "$tasks"}}],
    "adapt.merge": [NETWORK, {"adapt.dora": {}}],
    "adapt.merge_lora": [NETWORK, {"adapt.lora": {}}],
    "adapt.prompts": [TRANSFORMER],
    "evaluate.episodes": [EMBEDDING],
    "evaluate.quantization": [NETWORK, QUANTIZED],
    "meta": [EMBEDDING],
    "meta.optimizer": [{"networks.update_rule": {}}],
    "prune.blocks": [TRANSFORMER],
    "prune.embedding_rows": [TEXT],
    "distill.static": [{"networks.minilm": {}}],
    "prune.vocabulary": [{"networks.minilm": {}}],
    "prune.heads": [TRANSFORMER],
    "prune.meta": [EMBEDDING],
    "distill.meta": [EMBEDDING],
    "quantize.adaround": [NETWORK, QUANTIZED],
    "quantize.aware": [NETWORK, QUANTIZED],
    "quantize.correct_bias": [NETWORK, QUANTIZED],
    "quantize.mixed": [NETWORK, QUANTIZED],
}
"""Mapping or family → the steps that an example takes before it, where these are not a classifier alone."""
FIELDS: dict[str, dict[str, Any]] = {
    "distill.ensemble": {"teachers": ["$network", "$other"]},
    "evaluate.cross_validated": {"folds": 2, "candidates": {"a": "$all"}, "without": ["$first", "$second"]},
    "evaluate.sensitivity": {"data": "$images"},
    "meta.semi": {"tasks": {"episodes": {"data": "$images", "ways": 5, "shots": 1, "unlabelled": 5}}},
    "networks.hf_text": next(iter(TEXT.values())),
    "prune.embedding_rows": {"data": "$texts"},
    "distill.static": {"data": "$texts"},
    "prune.vocabulary": {"data": "$texts"},
    "prune.gradual": {
        "criterion": {"prune.magnitude": {"macs": 0.5}},
        "train": {"train.supervised": {"data": "$images"}},
    },
    "semi.discover": {"unlabelled": "$pool"},
    **{
        f"semi.{name}": {"data": "$few", "unlabelled": "$pool"}
        for name in (
            *("fixmatch", "flexmatch", "freematch", "mean_teacher"),
            *("propagation", "pseudo_label", "pt_map", "structured"),
        )
    },
    "online.language": {"stream": {"bytes": {"files": ["book.txt"]}}},
    "train.sparse": {"train": {"train.supervised": {"data": "$images"}}},
}
"""Mapping → fields of its example, where the least that its contract needs tells a reader little."""


FILES = {
    "arrays": {"file": "samples.npz"},
    "bytes": {"files": ["book.txt"]},
    "csv": {"file": "events.csv", "target": "column"},
    "drift": {"streams": [{"sea": {}}, {"sea": {"thresholds": [4.0], "seed": 1}}], "at": [5000]},
    "feature_drift": {"stream": {"agrawal": {}}, "appear": {"car": 5000}},
    "feedback": {"state": "service/state.sqlite", "model": "signs"},
    "folder": {"folder": "events", "target": "column"},
    "images": {"folder": "photos"},
    "jsonl": {"file": "events.jsonl", "target": "key"},
    "kafka": {"brokers": "localhost:9092", "topics": ["events"], "target": "key"},
    "label_shift": {
        "data": {"table": {"file": "table.csv", "target": "column"}},
        "weights": [[0.9, 0.1], [0.1, 0.9]],
    },
    "late_labels": {"stream": {"sea": {}}, "events": 1000},
    "parquet": {"file": "events.parquet", "target": "column"},
    "replay": {"data": {"table": {"file": "table.csv", "target": "column"}}},
    "table": {"file": "table.csv", "target": "column"},
    "tags": {"file": "sentences.jsonl"},
    "text": {"file": "intents.csv", "target": "intent"},
}
"""Data sets and streams of the reader's own, or of others → what they are read from."""


def instance(cls: type[Any], **given: Any) -> Any:
    """One with as few fields as it can be made with; what they have to be a class says itself, in `contract`."""
    said = {name: _over(value) for name, value in getattr(cls, "contract", {}).items()}
    by_kind: dict[str, Any] = {"dataset": ref("images"), "tasks": ref("tasks"), "network": ref("network")}
    by_kind["mapping"] = {"evaluate.accuracy": {"data": "$images"}}
    for name, info in cls.__pydantic_fields__.items():
        marker = marker_in((info.annotation, *info.metadata))
        if name in said and info.is_required():
            given.setdefault(name, said.pop(name))
        elif info.is_required() and marker is not None and marker.kind in by_kind:
            given.setdefault(name, by_kind[marker.kind])
    try:
        return from_plain(cls, given)
    except SpecError:
        added = dict(said)
        for name in said:  # what it can be made without, and a few words are more than many
            rest = {key: value for key, value in added.items() if key != name}
            try:
                from_plain(cls, {**given, **rest})
            except SpecError:
                continue
            added = rest
        return from_plain(cls, {**given, **added})


def _over(value: Any) -> Any:
    """A value of a contract, over the images that the examples have."""
    if isinstance(value, dict):
        return (
            "$images" if "subset" in value or value == IMAGES else {name: _over(part) for name, part in value.items()}
        )
    return [_over(part) for part in value] if isinstance(value, (list, tuple)) else value


def example(each: Named) -> str:
    """A recipe in which it stands, as short as it can be; `parse_recipe` reads it."""
    cls = discovery.find(each.group, each.name)
    if each.group == "mappings":
        steps = _steps_with(each, cls)
    elif issubclass(cls, (Dataset, Tasks, Stream)):
        return _of_data(each, cls)
    else:
        node = node_of(instance(cls))
        field = {each.space: [node if list(node) == [each.short] else {each.short: node}]}
        data = "$images" if "images" in cls.on else "$rows"
        network = NETWORK if "images" in cls.on else {"networks.mlp": {"data": data, "classes": "data"}}
        steps = [network, {"train.supervised": {"data": data, **field}}]
    labels = _labels(steps)
    text = _written(steps, {name: node for name, node in BEGIN.items() if name in labels})
    parse_recipe(text, where=each.name)
    return text


def _steps_with(each: Named, cls: type[Any]) -> list[Any]:
    node = node_of(instance(cls, **FIELDS.get(each.name, {})))
    if accepts(cls.takes, type(None)):
        return [node]
    before: list[Any] = BEFORE.get(each.name, BEFORE.get(each.space, [NETWORK]))
    if each.name == "adapt.average":  # which needs a network and what was tuned from it
        tuned = {"adapt.finetune": {"data": "$images"}}
        return [EMBEDDING, {"adapt.ridge": {"data": "$images"}, "as": "network"}, tuned, node]
    if each.name == "evaluate.cross_validated":  # which needs a network for each fold
        made = {"all": "$images", "first": "$without_0", "second": "$without_1"}
        branches = {label: [{"adapt.linear": {"data": data}}] for label, data in made.items()}
        chosen = {"choose.branch": {"label": "all"}, "observe": {"report": node}}
        return [EMBEDDING, {"fork": branches}, chosen]
    if "$network" in _flow(node):
        before = [*before[:-1], {**before[-1], "as": "network"}, {"prune.magnitude": {"macs": 0.5}}]
    if "$other" in _flow(node):
        before[-1] = {**before[-1], "as": "other"}
    if accepts(cls.takes, Network):
        if cls.gives is Report:
            return [*before[:-1], {**before[-1], "observe": {"report": node}}]
        return [*before, node]
    if cls.takes is Model:
        return [{"online.softmax": {"stream": {"sea": {"events": 1000}}}}, node]
    if cls.takes is Package:
        package = {"export.onnx": {}}
        return [*before, {**package, "observe": {"report": node}}] if cls.gives is Report else [*before, package, node]
    sizes = {name: [{"prune.magnitude": {"macs": macs}}] for name, macs in (("a", 0.5), ("b", 0.25))}
    return [*before, {"fork": sizes}, node]


def _of_data(each: Named, cls: type[Any]) -> str:
    node = node_of(instance(cls, **FILES.get(each.name, {})))
    over = "$images" in _flow(node)
    if issubclass(cls, Stream):
        data = {"images": IMAGES, "some": node} if over else {"some": node}
        steps: list[Any] = [{"online.softmax": {"stream": "$some"}}]
    elif not issubclass(cls, Tasks):
        data = {"images": IMAGES, "some": node} if over else {"some": node}
        steps = [{"networks.conv4" if each.name != "table" else "networks.mlp": {"data": "$some"}}]
        if each.name in ("tags", "text"):
            head = "adapt.best" if each.name == "text" else "adapt.tagger"
            steps = [{"networks.minilm": {}}, {head: {"data": "$some"}}]
    elif over or "$tasks" in _flow(node):
        data = {"images": IMAGES, "tasks": BEGIN["tasks"], "some": node}
        data = {name: value for name, value in data.items() if name in ("images", "some") or "$tasks" in _flow(node)}
        steps = [{"networks.conv4": {"data": "$images"}}, {"meta.protonet": {"tasks": "$some"}}]
    else:
        data = {"some": node}
        inputs = {"inputs": size} if (size := getattr(cls, "size", None)) else {}
        steps = [{"networks.mlp": inputs}, {"meta.maml": {"tasks": "$some", "inner_rate": 0.01}}]
    text = _written(steps, data)
    parse_recipe(text, where=each.name)
    return text


def _labels(steps: list[Any]) -> set[str]:
    found = set(re.findall(r"\$(\w+)", _flow(steps)))
    return found | ({"images"} if found & {"tasks", "without_0"} else set())


def _flow(node: Any) -> str:
    text = yaml.safe_dump(node, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return re.sub(r"'(\$\w+)'", r"\1", text).removesuffix("...\n").strip()


def _written(steps: list[Any], data: dict[str, Any]) -> str:
    lines = ["schema: 1"]
    if data:
        lines += ["data:", *(f"  {name}: {_flow(node)}" for name, node in data.items())]
    lines.append("steps:")
    for step in steps:
        for i, (name, node) in enumerate(step.items()):
            lines.append(f"  {'- ' if i == 0 else '  '}{name}: {_flow(node)}")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------ where used


@cache
def _texts() -> dict[str, str]:
    """Where a name may be used → the text: guides and tutorials as pages of the site, recipes and benchmarks as names."""
    found = {f"recipe:{name}": (ROOT / "src/mapsto/recipes" / f"{name}.yaml").read_text("utf-8") for name in recipes()}
    for path in sorted((ROOT / "docs").glob("*.md")):
        found[f"page:{path.name}"] = path.read_text("utf-8")
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        found[f"page:tutorials/{path.stem}.ipynb"] = path.read_text("utf-8")
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        found[f"bench:{path.stem}"] = path.read_text("utf-8")
    for path in sorted((ROOT / "benchmarks" / "meta" / "rows").glob("*.yaml")):
        found["bench:meta_accuracy"] = found.get("bench:meta_accuracy", "") + path.read_text("utf-8")
    return found


@cache
def _named_in(text: str) -> frozenset[str]:
    """Dotted names in a text, and plain ones that have fields, as in ``{digits: {size: 16}}``."""
    return frozenset(re.findall(r"\b[a-z]+\.\w+", text)) | frozenset(re.findall(r"(?<=[\[{,\s-])(\w+):\s*{", text))


@cache
def _tables() -> dict[str, str]:
    """Benchmark → the page with its table."""
    pages = sorted((ROOT / "docs" / "benchmarks").glob("*.md"))
    return {name: page.name for page in pages for name in re.findall(r"<!-- table (\w+) -->", page.read_text("utf-8"))}


def used_in(each: Named, *, root: str) -> list[str]:
    """Lines of links: recipes by name, benchmarks by their pages, guides and tutorials."""
    known = {each.name} if each.group == "mappings" else {each.python, each.short}
    found: dict[str, list[str]] = {"Recipes": [], "Benchmarks": [], "Pages": []}
    for where, text in _texts().items():
        kind, _, name = where.partition(":")
        if not known & _named_in(text):
            continue
        if kind == "recipe":
            found["Recipes"].append(f"`{name}`")
        elif kind == "bench" and name in _tables():
            found["Benchmarks"].append(f"[`{name}`]({root}/benchmarks/{_tables()[name]})")
        elif kind == "page" and name not in ("mappings.md", "index.md"):
            found["Pages"].append(f"[{page_title(text)}]({root}/{name})")
    return [f"- {kind}: {', '.join(dict.fromkeys(links))}" for kind, links in found.items() if links]


def page_title(text: str) -> str:
    """The first heading of a page, or of a tutorial's source."""
    heading = re.search(r"^(?:# )?# (?!%%)(.+)$", text, re.MULTILINE)
    return heading[1] if heading else "untitled"


# ---------------------------------------------------------------------------------------------------------------- pages


def page(each: Named) -> str:
    """The page of one mapping, data set or other named thing."""
    root = "../.."
    tree = describe(each.group, each.name)
    cls = discovery.find(each.group, each.name)
    kinds = f"{tree['takes']} → {tree['gives']}, " if "takes" in tree else ""
    if "on" in tree:
        kinds = f"for {' and '.join(tree['on'])}{', mixes samples and their targets' if tree['mixes'] else ''}, "
    lines = [f"# {each.title}", "", f"*{kinds}version {tree['version']}*", ""]
    lines += _spaced(paragraphs(tree["doc"], root=root))
    about = tree["about"] if not tree["about"].startswith(f"{tree['class']}(") else ""
    words = paragraphs(about, root=root)
    said = [block for block in words if not block.startswith(("```pycon", "Raises"))]
    lines += _spaced(said)
    lines += ["## Fields", ""]
    lines += table(tree["fields"], root=root) if tree["fields"] else ["It has none."]
    lines += nested(tree["schema"], root=root)
    lines += ["", "## In a recipe", "", "```yaml", example(each).rstrip(), "```", ""]
    lines += ["## In Python", "", "```python", signature(each, tree), "```", ""]
    lines += _spaced([block for block in words if block.startswith("```pycon")])
    errors = [block for block in words if block.startswith("Raises")]
    errors += [block for block in paragraphs(_raised(cls), root=root) if block not in errors]
    if errors:
        lines += ["## Errors", "", *_spaced(errors)]
    links = used_in(each, root=root)
    if links:
        lines += ["## Used in", "", *links, ""]
    entry = discovery.entries(each.group)[each.name]
    where = entry.path.relative_to(ROOT).as_posix() if entry.path else entry.module
    lines += [f"Source: `{where}`", ""]
    return "\n".join(lines)


def _spaced(blocks: list[str]) -> list[str]:
    return [line for block in blocks for line in (block, "")]


def _raised(cls: type[Any]) -> str:
    """What the docstrings of its own methods say that they raise."""
    found: Iterator[str] = (getattr(vars(cls).get(name), "__doc__", None) or "" for name in ("apply", "open"))
    sentences = [match for text in found for match in re.findall(r"Raises .+?(?:\.(?=\s|$))", text, re.DOTALL)]
    return "\n\n".join(" ".join(sentence.split()) for sentence in dict.fromkeys(sentences))


def introduction(space: str) -> str:
    """What a family is for: the docstring of its folder."""
    group = next(each.group for each in named() if each.space == space)
    folder = Path(discovery.__file__).parent / discovery.FOLDERS[group]
    path = (folder / space if group == "mappings" else folder) / "__init__.py"
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "") if path.is_file() else ""


def family(space: str, members: list[Named]) -> str:
    """The page of a family: what is in it."""
    title = TITLES.get(members[0].group, space) if members[0].group != "mappings" else space
    lines = [f"# {title}", "", *_spaced(paragraphs(introduction(space), root="../.."))]
    lines += ["| name | what it does |", "|---|---|"]
    for each in members:
        summary = prose(discovery.summary(discovery.entries(each.group)[each.name]), root="../..", cell=True)
        lines.append(f"| [`{each.title}`]({each.short}.md) | {summary} |")
    lines += ["", "```{toctree}", ":hidden:", "", *(f"/reference/{each.page}" for each in members), "```", ""]
    return "\n".join(lines)


def index() -> str:
    """The reference's first page."""
    lines = [
        "# Reference",
        "",
        "A page for every name that a recipe can say, made from its dataclass: fields with type, range, default and unit, formula and",
        "citation, an example, errors. `mapsto show NAME` says the same in a terminal. All names on one page: [Mappings](../mappings.md).",
        "",
        "| family | what it does | members |",
        "|---|---|---|",
    ]
    for space, members in spaces().items():
        title = TITLES.get(members[0].group, space) if members[0].group != "mappings" else f"`{space}`"
        first = prose(introduction(space).split("\n\n")[0], root="..", cell=True)
        lines.append(f"| [{title}]({space}/index.md) | {first} | {len(members)} |")
    listed = [f"{space}/index" for space in spaces()]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *listed, "```", ""])


def pages() -> dict[str, str]:
    """Every page of the reference: path within it → text."""
    found = {"index.md": index()}
    for space, members in spaces().items():
        found[f"{space}/index.md"] = family(space, members)
        found |= {f"{each.page}.md": page(each) for each in members}
    return found


def write(folder: Path, made: dict[str, str]) -> None:
    """Write pages; what is there already and the same is left as it is, so that Sphinx reads it no second time."""
    for path in sorted(folder.rglob("*.md")) if folder.is_dir() else []:
        if path.relative_to(folder).as_posix() not in made:
            path.unlink()
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), pages())
