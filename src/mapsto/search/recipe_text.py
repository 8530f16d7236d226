"""A recipe that was put together, as the YAML that people would write."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["recipe_text"]


def recipe_text(tree: dict[str, Any]) -> str:
    """The tree of a recipe as YAML; what occurs several times is written each time, without anchors."""
    return yaml.dump(tree, Dumper=_WrittenOut, sort_keys=False, allow_unicode=True, width=120)


class _WrittenOut(yaml.SafeDumper):
    """Writes what occurs several times each time, as people do."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
