"""A tokenizer with fewer tokens that splits what it has lost into pieces that it still has.

Kept are the tokens of a list, what the tokenizer calls special, and single characters, out of which any word can be spelled. A text
whose tokens are all kept is split as before: the longest match of WordPiece and the best path of Unigram are still there, and of BPE
each kept token brings along the merges that make it.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, cast

from mapsto.errors import DomainError

__all__ = ["Characters", "reduced", "special_tokens"]

Characters = Literal["scripts", "all"]

_WHERE = "the tokenizer"
_OWN_SPACE = "▁"
"""How SentencePiece writes a space."""


def reduced(tokenizer: bytes, used: Iterable[int], *, characters: Characters = "scripts") -> tuple[bytes, list[int]]:
    """The tokenizer with the tokens that stay, numbered anew from 0, and their former ids in that order, which is ascending.

    Parameters
    ----------
    tokenizer
        A ``tokenizer.json`` of the library tokenizers: WordPiece, BPE or Unigram.
    used
        Ids of tokens to keep.
    characters
        Which tokens of a single character stay besides: those of the scripts that the used tokens are written in, with all digits,
        signs and the letters of ASCII, or all. Of bytes all stay.

    Raises `DomainError` for a tokenizer of whole words, which cannot split one, or one that does not read back as it was written.
    """
    tree: dict[str, Any] = json.loads(tokenizer)
    model = tree["model"]
    kind = str(model.get("type"))
    if kind not in _REDUCE:
        raise DomainError(
            f"it is of kind {kind}, which cannot split a word that it has lost",
            where=_WHERE,
            hint="prune.embedding_rows keeps the tokenizer, and maps lost words to the unknown one",
        )
    own = _tokens(model)
    added = {int(entry["id"]): str(entry["content"]) for entry in tree.get("added_tokens") or []}
    names = {**added, **own}
    kept = {number for number in used if number in names} | set(added)
    special, unknown = special_tokens(tokenizer)
    kept |= special if unknown is None else {*special, unknown}
    numbered = {token: number for number, token in names.items()}
    kept |= {numbered[token] for token in _placed(tree.get("post_processor")) if token in numbered}
    single = {number: core for number, token in own.items() if len(core := _core(token, model)) == 1}
    everything = characters == "all" or _of_bytes(tree)
    scripts = {_script(letter) for number in kept for letter in own.get(number, "")}
    kept |= {number for number, core in single.items() if everything or _script(core) in scripts}
    kept |= {number for number, token in own.items() if _is_byte(token)}
    former = _REDUCE[kind](model, own, kept)
    former += sorted(number for number in kept if number not in own)
    numbers = {old: new for new, old in enumerate(former)}
    for entry in tree.get("added_tokens") or []:
        entry["id"] = numbers[int(entry["id"])]
    tree["added_tokens"] = sorted(tree.get("added_tokens") or [], key=lambda entry: int(entry["id"]))
    _renumber(tree.get("post_processor"), {names[old]: new for old, new in numbers.items()})
    if tree.get("padding"):
        tree["padding"]["pad_id"] = numbers.get(int(tree["padding"]["pad_id"]), 0)
    content = json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()
    _require_readable(content, {names[old]: new for old, new in numbers.items()})
    return content, former


def special_tokens(tokenizer: bytes) -> tuple[set[int], int | None]:
    """Ids of the tokens that the tokenizer calls special, and that of the unknown one, where it has one."""
    tree: dict[str, Any] = json.loads(tokenizer)
    added: list[dict[str, Any]] = tree.get("added_tokens") or []
    names = {str(entry["content"]): int(entry["id"]) for entry in added}
    special = {int(entry["id"]) for entry in added if entry.get("special")}
    model: dict[str, Any] = tree.get("model") or {}
    if isinstance(model.get("unk_id"), int):
        return special | {int(model["unk_id"])}, int(model["unk_id"])
    vocabulary: Any = model.get("vocab")
    known = {**vocabulary, **names} if isinstance(vocabulary, dict) else names
    names_of_it = [str(model.get("unk_token")), "[UNK]", "<unk>"]
    return special, next((int(known[token]) for token in names_of_it if token in known), None)


def _tokens(model: dict[str, Any]) -> dict[int, str]:
    """The model's own tokens by id."""
    vocabulary: Any = model["vocab"]
    if isinstance(vocabulary, dict):
        return {int(number): str(token) for token, number in vocabulary.items()}
    return {number: str(entry[0]) for number, entry in enumerate(vocabulary)}


def _core(token: str, model: dict[str, Any]) -> str:
    """A token without what marks that it continues or ends a word."""
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    token = token.removeprefix(prefix) if len(token) > len(prefix) else token
    return token.removesuffix(suffix) if len(token) > len(suffix) else token


def _of_bytes(tree: dict[str, Any]) -> bool:
    """Whether its single characters stand for bytes."""
    return any("ByteLevel" in json.dumps(tree.get(part)) for part in ("pre_tokenizer", "decoder", "normalizer"))


def _is_byte(token: str) -> bool:
    """Whether it is a byte that the tokenizer falls back to, as ``<0x0A>``."""
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _script(letter: str) -> str:
    """The script of a letter; empty for digits, signs and ASCII, which every text may hold.

    >>> _script("é"), _script("ж"), _script("?"), _script("a")
    ('LATIN', 'CYRILLIC', '', '')
    """
    if letter.isascii() or not (letter.isalpha() or unicodedata.category(letter).startswith("M")):
        return ""
    return unicodedata.name(letter, "? ").split()[0]


def _of_word_pieces(model: dict[str, Any], own: dict[int, str], kept: set[int]) -> list[int]:
    former = sorted(kept.intersection(own))
    model["vocab"] = {own[old]: new for new, old in enumerate(former)}
    return former


def _of_merges(model: dict[str, Any], own: dict[int, str], kept: set[int]) -> list[int]:
    """With each token the merges that make it, and the tokens that those merge."""
    numbers = {token: number for number, token in own.items()}
    prefix = model.get("continuing_subword_prefix") or ""
    merges: list[tuple[str, str]] = [_pair(entry) for entry in model["merges"]]
    makers: dict[str, list[tuple[str, str]]] = {}
    for left, right in merges:
        makers.setdefault(left + right.removeprefix(prefix), []).append((left, right))
    open_ = [own[number] for number in kept.intersection(own)]
    while open_:
        for pair in makers.get(open_.pop(), ()):
            missing = [token for token in pair if token in numbers and numbers[token] not in kept]
            kept.update(numbers[token] for token in missing)
            open_ += missing
    former = _of_word_pieces(model, own, kept)
    known = model["vocab"]
    model["merges"] = [
        entry
        for entry, (left, right) in zip(model["merges"], merges, strict=True)
        if left in known and right in known and left + right.removeprefix(prefix) in known
    ]
    return former


def _pair(entry: Any) -> tuple[str, str]:
    left, right = entry.split(" ") if isinstance(entry, str) else entry
    return str(left), str(right)


def _of_pieces(model: dict[str, Any], own: dict[int, str], kept: set[int]) -> list[int]:
    kept |= {number for number, token in own.items() if token == _OWN_SPACE}
    former = sorted(kept.intersection(own))
    model["vocab"] = [model["vocab"][old] for old in former]
    if isinstance(model.get("unk_id"), int):
        model["unk_id"] = former.index(int(model["unk_id"]))
    return former


_REDUCE: dict[str, Callable[[dict[str, Any], dict[int, str], set[int]], list[int]]] = {
    "WordPiece": _of_word_pieces,
    "BPE": _of_merges,
    "Unigram": _of_pieces,
}


def _placed(part: Any) -> list[str]:
    """The tokens that a post-processor puts around a text."""
    if not isinstance(part, dict):
        return []
    tree = cast("dict[str, Any]", part)
    tokens = [token for each in tree.get("processors") or () for token in _placed(each)]
    tokens += [str(tree[name][0]) for name in ("sep", "cls") if isinstance(tree.get(name), list)]
    if isinstance(tree.get("special_tokens"), dict):
        tokens += [str(token) for entry in tree["special_tokens"].values() for token in entry["tokens"]]
    return tokens


def _renumber(part: Any, numbers: dict[str, int]) -> None:
    """Set the ids that a post-processor holds, in place."""
    if not isinstance(part, dict):
        return
    tree = cast("dict[str, Any]", part)
    for each in tree.get("processors") or ():
        _renumber(each, numbers)
    for name in ("sep", "cls"):
        if isinstance(tree.get(name), list):
            tree[name] = [tree[name][0], numbers[tree[name][0]]]
    if isinstance(tree.get("special_tokens"), dict):
        for entry in tree["special_tokens"].values():
            entry["ids"] = [numbers[token] for token in entry["tokens"]]


def _require_readable(content: bytes, wanted: dict[str, int]) -> None:
    from mapsto.kinds import Preprocessing
    from mapsto_runtime.preprocessing.texts import tokenizer_of

    found: dict[str, int] = tokenizer_of(Preprocessing(kind="text", tokenizer_json=content)).get_vocab()
    if found != wanted:
        wrong = _first_difference(found, wanted)
        raise DomainError(
            f"the reduced one reads back with another id of '{wrong}'",
            where=_WHERE,
            hint="prune.embedding_rows keeps the tokenizer",
        )


def _first_difference(found: dict[str, int], wanted: dict[str, int]) -> str:
    names: Sequence[str] = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    return names[0]
