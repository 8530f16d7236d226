"""Text encoders of transformers, from a configuration or a local folder (extra ``text``); never from a hub.

Wolf et al., "Transformers: State-of-the-Art Natural Language Processing", 2020. The embedding is the mean of the last hidden states over
the tokens that are not padding (Reimers and Gurevych, "Sentence-BERT", 2019), or the state of the first or the last of them. Of pairs of
texts the embedding is ``[u, v, |u − v|, u ⊙ v, cos(u, v) … cos(u, v)]``, theirs with the cosine in as many places as the other parts
have: on few pairs heads that scale every number alike would else hardly see it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mapsto.errors import DataError, DomainError, MissingExtra
from mapsto.nn.networks._checks import classifier_of

__all__ = ["Pooling", "compared", "configured", "hf_text", "without_log"]

Pooling = Literal["mean", "cls", "last"]
"""The mean over the tokens, the first token, or the last that is not padding."""

_PARTS = 5
"""Parts of a pair's embedding, each as long as that of a text."""


def configured(library: Any, config: Mapping[str, Any], build: Callable[[Any], Any], *, where: str) -> Any:
    """What `build` makes of a configuration of transformers. Raises `DomainError` where it is refused."""
    fields = dict(config)
    kind = fields.pop("model_type", None)
    try:
        return build(library.AutoConfig.for_model(kind, **fields))
    except Exception as error:  # transformers raises errors of many kinds for one wrong field
        raise DomainError(
            f"transformers refuses this configuration of model_type {kind!r}: {error}",
            where=where,
            hint="give a model_type that transformers knows, with its own fields",
        ) from error


class TextEncoder(nn.Module):
    """Token ids to an embedding, and a classifier."""

    def __init__(
        self,
        encoder: nn.Module,
        embedding: int,
        padding: int,
        classes: int | None,
        *,
        normalize: bool = False,
        texts: int = 1,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.padding = padding
        self.normalize = normalize
        self.pooling = pooling
        self.left_out: tuple[str, ...] = ()
        """Tensors of the file of weights that belong to no layer, as a head that was trained beside the encoder."""
        self.branches = 1
        """Encoders whose embeddings stand side by side (`mapsto.nn.edits.tuned_branch`); each is normalised by itself."""
        self.texts = texts
        self.per_token = False
        self.embedding = embedding if texts == 1 else _PARTS * embedding
        self.classifier = classifier_of(self.embedding, classes)

    def hidden(self, x: Tensor) -> Tensor:
        """Token ids (N, L) → the last hidden states (N, L, D)."""
        mask = (x != self.padding).to(x.dtype)
        return self.encoder(input_ids=x, attention_mask=mask).last_hidden_state

    def embed(self, x: Tensor) -> Tensor:
        """Token ids (N, L), int64, padded with the padding id → embeddings (N, D); of pairs (N, 2, L) → (N, 5 D)."""
        return (
            self.embed_single(x)
            if self.texts == 1
            else compared(self.embed_single(x.flatten(0, 1)).unflatten(0, (-1, 2)))
        )

    def embed_single(self, x: Tensor) -> Tensor:
        """Token ids of single texts (N, L) → embeddings (N, D), of a network of pairs too."""
        pooled = self._pooled(self.hidden(x), x != self.padding)
        if not self.normalize:
            return pooled
        if self.branches == 1:
            return nn.functional.normalize(pooled, dim=1)
        return nn.functional.normalize(pooled.unflatten(1, (self.branches, -1)), dim=2).flatten(1)

    def _pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (N, L, D) and which of them are of tokens (N, L), none behind padding → (N, D)."""
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            places = (mask.sum(1) - 1).clamp(min=0)
            return hidden.gather(1, places[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.per_token:  # as `nn.edits.token_head` sets it: (N, K, L)
            return self.classifier(self.hidden(x)).transpose(1, 2)
        return self.classifier(self.embed(x))


def compared(pairs: Tensor) -> Tensor:
    """Embeddings of pairs (N, 2, D) → ``[u, v, |u − v|, u ⊙ v, cos(u, v) D times]``, (N, 5 D).

    >>> compared(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])).tolist()
    [[1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0]]
    """
    first, second = pairs[:, 0], pairs[:, 1]
    cosine = nn.functional.cosine_similarity(first, second, dim=1).unsqueeze(1).expand_as(first)
    return torch.cat([first, second, (first - second).abs(), first * second, cosine], 1)


@contextmanager
def without_log(library: Any) -> Generator[None]:
    """Without transformers' own progress bar and reports, which are of another form than mapsto's."""
    logging: Any = library.utils.logging
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def hf_text(
    *,
    config: dict[str, Any] | None = None,
    folder: str | None = None,
    classes: int | None = None,
    normalize: bool = False,
    texts: int = 1,
    pooling: Pooling = "mean",
) -> nn.Module:
    """A transformers encoder.

    Parameters
    ----------
    config
        As in ``config.json``, with ``model_type``: the encoder gets fresh weights.
    folder
        A local folder with ``config.json`` and ``model.safetensors``: the encoder gets those.
    classes
        Outputs of the classifier; None for the embedding.
    normalize
        Whether the embedding of a text has length 1.
    texts
        2: a sample is a pair of texts, (N, 2, L), and the embedding compares them.
    pooling
        How the states of a text's tokens become its embedding: ``mean``, ``cls``, the first, or ``last``.

    Raises
    ------
    MissingExtra
        transformers is not installed.
    DomainError
        Neither or both of `config` and `folder` are given, the configuration names no known model, or there is no such pooling.
    DataError
        The folder is not there or lacks a file, or the weights are not those of the configuration.
    """
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra("transformers", "text", where="hf_text") from error
    if (config is None) == (folder is None):
        raise DomainError(
            "give either config or folder", where="hf_text", hint="config for fresh weights, folder for trained ones"
        )
    if pooling not in get_args(Pooling):
        raise DomainError(
            f"there is no pooling {pooling!r}", where="hf_text", hint=f"give one of {', '.join(get_args(Pooling))}"
        )
    left_out: tuple[str, ...] = ()
    if folder is not None:
        encoder, left_out = _trained(library, folder)
    else:
        encoder = configured(library, config or {}, library.AutoModel.from_config, where="hf_text")
    made: Any = encoder.config
    if getattr(made, "hidden_size", None) is None or getattr(made, "vocab_size", None) is None:
        raise DomainError(
            f"model_type {made.model_type!r} is no text encoder", where="hf_text", hint="give one with a vocabulary"
        )
    padding = made.pad_token_id
    module = TextEncoder(
        encoder,
        int(made.hidden_size),
        -1 if padding is None else int(padding),
        classes,
        normalize=normalize,
        texts=texts,
        pooling=pooling,
    )
    module.left_out = left_out
    return module


def _trained(library: Any, folder: str) -> tuple[Any, tuple[str, ...]]:
    """The encoder of a folder, and which tensors of its file belong to no layer.

    Raises `DataError` where a layer would stay as it is drawn, or is of other weights than numbers.
    """
    if not (Path(folder) / "config.json").is_file():
        raise DataError("there is no config.json here", where=folder, hint="give a folder saved by transformers")
    try:
        with without_log(library):
            encoder, said = library.AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception as error:  # transformers and safetensors raise errors of many kinds
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"the encoder cannot be read: {why}", where=folder, hint="give a folder saved by transformers"
        ) from error
    missing = sorted(name for name in said["missing_keys"] if not _needless(name))
    unexpected = tuple(sorted(name for name in said["unexpected_keys"] if not name.endswith("position_ids")))
    if missing:
        others = f", and has others, such as {unexpected[0]}" if unexpected else ""
        raise DataError(
            f"model.safetensors has nothing for {len(missing)} of the encoder's tensors, such as {missing[0]}{others}",
            where=folder,
            hint="put the weights of this config.json there, as save_pretrained of transformers writes them",
        )
    other = sorted((str(name), tuple(found), tuple(wanted)) for name, found, wanted in said["mismatched_keys"])
    if other:
        name, found, wanted = other[0]
        raise DataError(
            f"{len(other)} tensors of model.safetensors are of other shapes than config.json says, such as {name}: {found}, not {wanted}",
            where=folder,
            hint="put the config.json of these weights there",
        )
    broken = sorted(name for name, tensor in encoder.state_dict().items() if not _is_finite(tensor))
    if broken:
        raise DataError(
            f"{len(broken)} tensors of model.safetensors hold numbers that are not finite, such as {broken[0]}",
            where=folder,
            hint="save the model again from before its training diverged, or in float32",
        )
    return encoder, unexpected


def _needless(name: str) -> bool:
    """Whether an embedding does without the tensor: what pools for other tasks, and tables of positions that follow from a rule."""
    return "pooler" in name.split(".") or name.endswith("position_ids")


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
