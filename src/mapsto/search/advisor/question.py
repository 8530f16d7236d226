"""What advice is asked on, from what people type: a path or a data set, and a limit."""

from __future__ import annotations

from pathlib import Path

from mapsto.errors import SpecError
from mapsto.recipe.yaml_text import read_yaml
from mapsto.search.advisor.advice import Asked, asked, examples_of, kind_of
from mapsto.search.advisor.goal import Goal
from mapsto.search.compress import data_node, parse_limit

__all__ = ["goal_of", "question_of"]


def question_of(place: str, target: str | None, text: str | None, *, stream: bool) -> Asked:
    """The data as a recipe writes them.

    Parameters
    ----------
    place
        A folder of class folders, a file, a data set as in a recipe, or a recipe with data called ``examples``.
    target, text
        The column that is predicted, and the one that holds texts.
    stream
        Whether the rows of the file are events.

    Raises
    ------
    SpecError
        Something is missing, or there is no advice on such data.
    """
    file = Path(place)
    if file.suffix in (".yaml", ".yml") and file.is_file():
        tree = read_yaml(file.read_text(encoding="utf-8"), where=place)[1]
        data = tree.get("data") if isinstance(tree, dict) else None
        if not isinstance(data, dict) or "examples" not in data:
            raise SpecError("the recipe has no data called 'examples'", where=place, hint="name the labelled data so")
        return Asked(kind=kind_of(examples_of(data)), data=data)
    if stream:
        if target is None:
            raise SpecError("a stream needs the column that is predicted", where=place, hint="name it: --target COLUMN")
        if not file.is_file():
            raise SpecError("there is no such file", where=place, hint="give a stream's CSV file")
        return asked({"csv": {"file": str(file.resolve()), "target": target}}, stream=True)
    node = dict(data_node(place, target, columns=(text,) if text else ()))
    if file.is_dir() and "images" in node:  # as adapting does: what is no whole image is named, and left out
        node["images"] = {**node["images"], "skip_broken": True}
    return asked(node)


def goal_of(limit: str | None) -> Goal:
    """What is wanted of a recipe. Raises `SpecError` for a limit on which there is no advice."""
    if limit is None:
        return Goal()
    parsed = parse_limit(limit)
    if parsed.kind != "bytes":
        raise SpecError(
            f"there is no advice on a limit of {parsed.kind}", where="--limit", hint="as in --limit bytes=200kB"
        )
    return Goal(most_bytes=parsed.most)
