"""Recipes of before, rewritten as they are written now, with a note of each form that has changed.

What is now a list of augmentations was one mapping of fields: ``augment: {flip: true, crop_padding: 4}``. Labels are a recipe's own;
where a command sets an old one of a shipped recipe, it is told the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, cast

__all__ = ["label_of_today", "rewritten", "setting_of_today"]

_LABELS = {"lessons": "train_tasks", "drills": "distill_tasks", "rehearsals": "val_tasks", "exam": "test_tasks"}
"""Of shipped recipes, before and now."""
_HOLDERS = ("augment", "copies")
_AFFINE = ("degrees", "scale", "shear", "translate")
_FORMER = (*_AFFINE, "crop_padding", "flip", "noise")
_NOISE = 4
"""Noise was given in units of the normalised input. From black to white there are about four: standard deviations are about 0.25."""


def rewritten(document: dict[str, Any]) -> list[str]:
    """Rewrite a document in place. Gives a note for each form that has changed, with what it is now."""
    changes: dict[str, str] = {}
    noisy = False
    for fields, name in _former(document):
        former = cast("dict[str, Any]", fields[name])
        fields[name] = _operations(former)
        changes[_inline(former)] = _inline(fields[name])
        noisy = noisy or bool(former.get("noise"))
    quick = document.get("quick")
    if isinstance(quick, dict):
        document["quick"] = {setting_of_today(str(key)): value for key, value in cast("dict[Any, Any]", quick).items()}
    notes = [
        f"`augment: {before}` is written `augment: {after}` now, and was read so" for before, after in changes.items()
    ]
    if noisy:
        notes.append(
            "the noise of an augmentation is now in units of the way from black to white, not of the normalised input: it was divided "
            f"by {_NOISE}, which is the same where the standard deviation is {1 / _NOISE}"
        )
    return notes


def setting_of_today(target: str) -> str:
    """What ``label.field`` of before is called now.

    >>> setting_of_today("teacher.augment.crop_padding"), setting_of_today("teacher.augment.degrees"), setting_of_today("teacher.epochs")
    ('teacher.augment.crop.padding', 'teacher.augment.affine.degrees', 'teacher.epochs')
    """
    before, _, field = target.rpartition(".")
    if before.rpartition(".")[2] not in _HOLDERS:
        return target
    if field in _AFFINE:
        return f"{before}.affine.{field}"
    return f"{before}.crop.padding" if field == "crop_padding" else target


def _former(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """The fields, and the name among them, of each list of augmentations in the former form."""
    if isinstance(node, list):
        for part in cast("list[Any]", node):
            yield from _former(part)
    if isinstance(node, dict):
        for name, part in cast("dict[Any, Any]", node).items():
            if name in _HOLDERS and _is_former(part):
                yield cast("dict[str, Any]", node), name
            else:
                yield from _former(part)


def _is_former(node: Any) -> bool:
    if not isinstance(node, dict):
        return False
    fields = cast("dict[Any, Any]", node)
    return all(name in _FORMER and isinstance(value, (bool, int, float)) for name, value in fields.items())


def _operations(former: dict[str, Any]) -> list[dict[str, Any]]:
    """The list that does what the fields did, in the order that they did it."""
    found: list[dict[str, Any]] = []
    affine = {name: former[name] for name in _AFFINE if former.get(name)}
    parts: tuple[tuple[str, Any, Callable[[], dict[str, Any]]], ...] = (
        ("affine", affine, lambda: affine),
        ("crop", former.get("crop_padding"), lambda: {"padding": former["crop_padding"]}),
        ("flip", former.get("flip"), dict),
        ("noise", former.get("noise"), lambda: {"std": former["noise"] / _NOISE}),
    )
    for name, wanted, fields in parts:
        if wanted:
            found.append({name: fields()})
    return found


def _inline(node: Any) -> str:
    """A value as YAML writes it in one line."""
    if isinstance(node, dict):
        return "{" + ", ".join(f"{name}: {_inline(part)}" for name, part in cast("dict[Any, Any]", node).items()) + "}"
    if isinstance(node, list):
        return (
            "[" + ", ".join(_inline(part).removeprefix("{").removesuffix("}") for part in cast("list[Any]", node)) + "]"
        )
    return str(node).lower() if isinstance(node, bool) else str(node)


def label_of_today(label: str, known: Collection[str]) -> str | None:
    """What a shipped recipe's label is called now, where the recipe at hand knows it.

    >>> label_of_today("rehearsals", ["train_tasks", "val_tasks"])
    'val_tasks'
    >>> label_of_today("rehearsals", ["mine"]), label_of_today("other", ["val_tasks"])
    (None, None)
    """
    found = _LABELS.get(label)
    return found if found in known else None
