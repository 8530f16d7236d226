"""Explained answers of a card as its page shows them, from the card's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mapsto.report import page
from mapsto_runtime.shown import short

__all__ = ["explained_case", "strongest"]

_MOST_COLUMNS = 10
_IN_WORDS = 5


def explained_case(case: Mapping[str, Any]) -> dict[str, Any]:
    """What the macro `explained` takes, of one explained answer of card.json."""
    found = case["explanation"]
    sure = f" ({case['confidence']:.2f})" if "confidence" in case else ""
    words = found.get("words") or found.get("tokens") or []
    columns = sorted(found.get("columns") or [], key=lambda each: -abs(each["score"]))[:_MOST_COLUMNS]
    most = max((abs(each["score"]) for each in words), default=0.0) or 1.0
    rows = [[each["name"], short(each.get("value", ""), 60), each["score"]] for each in columns]
    unit = "value" if found["value"] else "log-odds"
    return {
        "right": case["right"],
        "mark": "right" if case["right"] else "wrong",
        "said": f"{short(str(case['label']), 40)} → {short(str(case['answer']), 40)}{sure}",
        "title": short(Path(str(case["source"])).name or str(case["source"]), 60),
        "facts": f"Explained is {short(str(found['target']))}: {found['score']:.3g} as it is, {found['without']:.3g} with everything "
        f"hidden ({unit}, by {found['way']}).",
        "picture": case.get("picture", ""),
        "words": [
            {
                "text": each["name"],
                "share": f"{100 * abs(each['score']) / most:.0f}%",
                "against": each["score"] < 0,
                "score": f"{each['score']:+.3g}",
            }
            for each in words
        ],
        "table": page._view({"columns": ["column", "value", "speaks for it by"], "rows": rows}) if rows else None,
        "support": _support(case["support"]) if "support" in case else None,
    }


def _support(support: Mapping[str, Any]) -> dict[str, Any]:
    examples: list[dict[str, Any]] = support["examples"]
    said = (
        f"examples that put {short(support['answer'], 40)} ahead of {short(support['against'], 40)} by {support['lead']:.3g} "
        f"(by {support['how']}; {support['rest']:+.3g} is no example's)"
    )
    pictures = [
        {
            "uri": each["picture"],
            "said": f"{short(each['label'], 30)}: {each['part']:+.3g}",
            "name": short(Path(each["name"]).name, 40),
        }
        for each in examples
        if "picture" in each
    ]
    rows = [[each["name"], each["label"], each["part"], each["likeness"]] for each in examples]
    table = page._view({"columns": ["example", "class", "part", "likeness"], "rows": rows})
    return {"said": said, "pictures": pictures, "table": None if pictures else table}


def strongest(case: Mapping[str, Any]) -> str:
    """The words or columns with the largest scores, in words; empty for an image.

    >>> strongest({"explanation": {"columns": [{"name": "age", "score": 0.5}, {"name": "town", "score": -2.0}]}})
    'town -2, age +0.5'
    """
    found = case["explanation"]
    parts: list[dict[str, Any]] = found.get("words") or found.get("tokens") or found.get("columns") or []
    taken = sorted(parts, key=lambda each: -abs(each["score"]))[:_IN_WORDS]
    return ", ".join(f"{short(each['name'], 30)} {each['score']:+.3g}" for each in taken)
