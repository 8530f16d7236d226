"""Folders of models from the Hugging Face hub: fetched once into its own cache, and found there without a connection."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.data.io.download import downloads_allowed
from mapsto.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["forget", "model_folder"]

_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "*.model",
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "*/config.json",
    "adapter_config.json",
    "adapter_model.safetensors",
)
"""What an encoder or an adapter needs of a model; never its code or pickles."""


def model_folder(model: str, revision: str | None = None) -> Path:
    """The folder of a model in the cache of ``huggingface_hub``, fetched where it is not there.

    Parameters
    ----------
    model
        Its name, as ``sentence-transformers/all-MiniLM-L6-v2``.
    revision
        A commit, a tag or a branch; None for the newest, or without a connection the newest that was fetched.

    Raises
    ------
    MissingExtra
        ``huggingface_hub``, of the extra ``text``, is not installed.
    DataError
        There is no such model or revision, it asks for a key, or it was not fetched before and there is no connection.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "text", where=model) from error
    return _folder(model, revision, huggingface_hub.snapshot_download)


@lru_cache(maxsize=32)
def _folder(model: str, revision: str | None, download: Callable[..., Any]) -> Path:
    """Once a process: a recipe would else ask the hub again at each of its steps, and could be answered with two revisions."""
    from huggingface_hub import errors

    called = model if revision is None else f"{model} at {revision}"
    by_hand = f"fetch it where there is a connection, `hf download {model} --local-dir FOLDER`, and give that folder"
    try:
        found = download(
            model, revision=revision, allow_patterns=list(_FILES), local_files_only=not downloads_allowed()
        )
    except errors.HFValidationError as error:
        raise DataError(f"{model!r} is no name of a model", where="model", hint="write OWNER/NAME") from error
    except errors.GatedRepoError as error:
        raise DataError(
            f"{model} is given only to accounts that were granted it",
            where="model",
            hint="ask for it on its page, then log in with `hf auth login`",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"the hub has no model {model}, or does not show it to you",
            where="model",
            hint="check OWNER/NAME; of private ones log in with `hf auth login`",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"{model} has no revision {revision}", where="revision", hint="leave it out") from error
    except errors.LocalEntryNotFoundError as error:
        raise DataError(
            f"{called} was not fetched before, and the hub is not asked or does not answer", where="model", hint=by_hand
        ) from error
    except (OSError, errors.HfHubHTTPError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{called} cannot be fetched: {why}", where="model", hint=by_hand) from error
    return Path(os.fspath(found))


def forget() -> None:
    """Ask the hub again where it was asked before."""
    _folder.cache_clear()
