"""A client of the service in Python: files and rows in, labels out; adapting, feedback and versions. The standard library and NumPy do.

client = Client("http://127.0.0.1:8080", key)
answer = client.infer("demo", ["seven.png"])
client.feedback("demo", answer, ["7"])
"""

from __future__ import annotations

import base64
import json
import logging
import random
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, overload
from urllib.parse import quote

import numpy as np

from mapsto.errors import DataError, DomainError, MapstoError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answer", "Client", "Inputs", "Job", "ServiceError"]

Inputs: TypeAlias = "Sequence[str | Path | bytes | tuple[str, ...]] | Mapping[str, Sequence[Any]] | NDArray[Any]"
"""Image files, by path or content; texts, or pairs of them, for a model that reads texts; columns of a table by name; or the model's own
tensor (N, ...)."""
_log = logging.getLogger("mapsto")
_TYPES = {"f": "FP64", "i": "INT64", "u": "UINT64", "b": "BOOL"}


class ServiceError(MapstoError):
    """The service refused a request; `status` is that of HTTP, 0 where it could not be reached."""

    def __init__(self, what: str, *, status: int, where: str) -> None:
        super().__init__(what, where=where)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a version made of N samples."""

    model: str
    version: str
    labels: tuple[str, ...]
    """Of each sample; none where the model does not classify."""
    scores: NDArray[np.float64]
    """(N, ...)."""
    request_id: str
    """By which `Client.feedback` names it; empty where the model does not learn."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Adapting that takes seconds."""

    model: str
    id: str
    """Empty of what was done at once."""
    state: Literal["queued", "running", "done", "failed"]
    version: str
    """Once it is done."""
    error: str
    """Why it failed, where it did."""
    masked: int = 0
    """Labels that the service changed by masking."""


class Client:
    """A service by its address.

    Parameters
    ----------
    url
        Such as ``http://127.0.0.1:8080``.
    key
        A key or a token.
    seconds
        After which a request is given up.
    tries
        Of a request that is refused because the service is busy or being started again: it is sent again when the service says.
    ca
        Of ``https://``: a file with the certificates that the service's is to be signed by, in PEM; None: those that this machine trusts.
    certificate
        Of ``https://``, where the service asks for one: the files of this client's certificate and of its private key, in PEM.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        seconds: float = 30.0,
        tries: int = 5,
        ca: str | Path | None = None,
        certificate: tuple[str | Path, str | Path] | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise DomainError(f"'{url}' is no address", where="Client", hint="give one such as http://127.0.0.1:8080")
        key = key.strip()  # as a file has it, with the end of its line
        if not key or not key.isascii() or not key.isprintable():
            raise DomainError("this is no key", where="Client", hint="give the key as it was shown, in ASCII letters")
        self._url, self._key, self._seconds, self._tries = url.rstrip("/"), key, seconds, tries
        self._tls = _context(ca, certificate) if url.startswith("https://") else None
        self._raw: dict[str, list[str]] = {}
        """Each model's inputs besides its tensor."""

    def infer(self, model: str, inputs: Inputs, *, version: str = "") -> Answer:
        """The labels and scores of samples. Raises `ServiceError`."""
        path = f"{_model(model)}/versions/{quote(version, safe='')}/infer" if version else f"{_model(model)}/infer"
        found = self._asked(path, {"inputs": self._tensors(model, inputs)})
        outputs = {each["name"]: each for each in found["outputs"]}
        labels = outputs.pop("label", {"data": ()})["data"]
        scores = next(iter(outputs.values()))
        return Answer(
            model=found["model_name"],
            version=found["model_version"],
            labels=tuple(labels),
            scores=np.array(scores["data"], np.float64).reshape(scores["shape"]),
            request_id=found.get("parameters", {}).get("request_id", ""),
        )

    @overload
    def adapt(
        self,
        model: str,
        inputs: Inputs,
        labels: Sequence[str],
        *,
        way: str = ...,
        shared: bool = ...,
        wait: float = ...,
    ) -> str: ...

    @overload
    def adapt(
        self, model: str, inputs: Inputs, labels: Sequence[str], *, way: str = ..., shared: bool = ..., wait: None
    ) -> Job: ...

    def adapt(
        self,
        model: str,
        inputs: Inputs,
        labels: Sequence[str],
        *,
        way: str = "ridge",
        shared: bool = False,
        wait: float | None = 600.0,
    ) -> str | Job:
        """A version for the classes of a few labelled samples: its name, or the job that makes it.

        Parameters
        ----------
        way
            How its head is fitted: ``ridge``, at once; ``logistic`` or ``best``, as a job of the service that takes seconds.
        shared
            For everyone, by a key with the scope admin.
        wait
            Seconds for which a job is waited for; None: it is not, and given back.

        Raises
        ------
        ServiceError
            It is refused, the job failed, or it has not ended in time.
        """
        parameters = {"way": way, "shared": shared, "labels": [_label(each) for each in labels]}
        found = self._asked(
            f"{_model(model)}/adapt", {"inputs": self._tensors(model, inputs), "parameters": parameters}
        )
        for note in found.get("notes", ()):
            _log.warning("%s: %s", model, note)
        _warn_masked(model, found)
        job = _job(found)
        return job if wait is None else self.wait(job, seconds=wait)

    def job(self, model: str, id_: str) -> Job:
        """How far a job is."""
        return _job(self._asked(f"{_model(model)}/jobs/{quote(id_, safe='')}"))

    def wait(self, job: Job, *, seconds: float = 600.0) -> str:
        """The version that comes of a job. Raises `ServiceError` where it failed or has not ended in time."""
        end, pause = time.monotonic() + seconds, 0.1
        while job.state in ("queued", "running"):
            if time.monotonic() > end:
                raise ServiceError(f"job '{job.id}' has not ended after {seconds:g} s", status=202, where=self._url)
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
            job = self.job(job.model, job.id)
        if job.state == "failed":
            raise ServiceError(f"job '{job.id}' failed: {job.error}", status=200, where=self._url)
        return job.version

    def feedback(self, model: str, answer: Answer | str, labels: Sequence[str | None]) -> int:
        """Store what is right of the samples of an answer, or of a request by its id: how many labels are stored.

        May be sent again: a label is stored once. A sample whose label is None is left out. Raises `DataError` for another number of
        labels than the answer has samples.
        """
        request = answer.request_id if isinstance(answer, Answer) else answer
        if isinstance(answer, Answer) and len(labels) != len(answer.scores):
            raise DataError(
                f"{len(labels)} labels for {len(answer.scores)} samples",
                where="Client.feedback",
                hint="give one a sample, None where it is not known",
            )
        given = [
            {"request_id": request, "row": row, "label": _label(label)}
            for row, label in enumerate(labels)
            if label is not None
        ]
        return self._stored(model, given)

    def teach(self, model: str, inputs: Inputs, labels: Sequence[str], *, keys: Sequence[str] = ()) -> int:
        """As `feedback`, for samples that come with their labels; `keys` name them, so that they may be sent again."""
        columns = self._tensors(model, inputs)
        for what, count in (("labels", len(labels)), ("keys", len(keys) or len(labels))):
            if any(each["shape"][0] != count for each in columns):
                raise DataError(
                    f"{count} {what} for {columns[0]['shape'][0]} samples",
                    where="Client.teach",
                    hint="give one a sample",
                )
        given: list[dict[str, Any]] = []
        for row, label in enumerate(labels):
            one = [{**each, "shape": [1, *each["shape"][1:]], "data": [each["data"][row]]} for each in columns]
            named = {"idempotency_key": keys[row]} if keys else {}
            given.append({"label": _label(label), "inputs": one, **named})
        return self._stored(model, given)

    def models(self) -> list[str]:
        """The names of the models that are served."""
        return [str(each) for each in self._asked("/v2")["models"]]

    def ready(self) -> bool:
        """Whether the service answers requests. Raises `ServiceError` where it cannot be reached."""
        try:
            return bool(self._asked("/v2/health/ready")["ready"])
        except ServiceError as error:
            if error.status == 503:
                return False
            raise

    def metrics(self) -> str:
        """Its metrics in Prometheus' text format, by a key with the scope metrics or admin."""
        return self._sent("/metrics", None).decode()

    def metadata(self, model: str) -> dict[str, Any]:
        """What the model takes and gives, as the Open Inference Protocol has it."""
        return self._asked(_model(model))

    def versions(self, model: str) -> dict[str, Any]:
        """``active``, the version that answers, and ``versions``, all that this key may use."""
        return self._asked(f"{_model(model)}/versions")

    def learner(self, model: str) -> dict[str, Any]:
        """How far the model's learner is, and what held-back labels said of its last version."""
        return self._asked(f"{_model(model)}/learner")

    def promote(self, model: str, version: str) -> str:
        """Let a version answer, by a key with the scope admin; the one that did before."""
        return str(self._asked(f"{_model(model)}/versions/{quote(version, safe='')}/promote", {})["before"])

    def roll_back(self, model: str) -> str:
        """Let the version before answer again; which that is."""
        return str(self._asked(f"{_model(model)}/rollback", {})["active"])

    # -- private

    def _stored(self, model: str, given: Sequence[Mapping[str, Any]]) -> int:
        found = self._asked(f"{_model(model)}/feedback", {"feedback": given})
        _warn_masked(model, found)
        return sum(bool(each["stored"]) for each in found["feedback"])

    def _tensors(self, model: str, inputs: Inputs) -> list[dict[str, Any]]:
        if isinstance(inputs, Mapping):
            return [_column(name, values) for name, values in inputs.items()]
        if isinstance(inputs, np.ndarray):
            spec = self.metadata(model)["inputs"][0]
            if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
                raise DataError("it holds NaN or infinity", where="the inputs", hint="give numbers alone")
            return [
                {"name": spec["name"], "datatype": spec["datatype"], "shape": [*inputs.shape], "data": inputs.tolist()}
            ]
        if isinstance(inputs, str | Path | bytes):
            raise DataError("it is one file or text", where="the inputs", hint="give a list of them, as [file]")
        raw = self._raw.get(model)
        if raw is None:
            raw = self._raw[model] = [each["name"] for each in self.metadata(model)["parameters"].get("raw_inputs", ())]
        if raw and raw[0].startswith("text"):
            rows = [(each,) if isinstance(each, str) else cast("tuple[str, ...]", each) for each in inputs]
            return [_column(name, [row[place] for row in rows]) for place, name in enumerate(raw)]
        files = cast("Sequence[str | Path | bytes]", inputs)
        data = [base64.b64encode(each if isinstance(each, bytes) else _content(Path(each))).decode() for each in files]
        return [
            {
                "name": "image",
                "datatype": "BYTES",
                "shape": [len(data)],
                "parameters": {"content_type": "base64"},
                "data": data,
            }
        ]

    def _asked(self, path: str, body: Any = None) -> Any:
        content = self._sent(path, None if body is None else json.dumps(body).encode())
        try:
            return json.loads(content)
        except ValueError as error:
            raise ServiceError("what answers there is no service of mapsto", status=0, where=self._url) from error

    def _sent(self, path: str, content: bytes | None) -> bytes:
        """What the service answers. Raises `ServiceError` where it refuses, or cannot be reached."""
        request = urllib.request.Request(self._url + path, content)
        request.add_header("Authorization", f"Bearer {self._key}")
        for name, value in _trace().items():
            request.add_header(name, value)
        for left in reversed(range(self._tries)):
            try:
                with urllib.request.urlopen(request, timeout=self._seconds, context=self._tls) as answer:
                    return answer.read()
            except urllib.error.HTTPError as error:
                again = error.headers.get("Retry-After", "")
                if left and error.code in (429, 503) and again.isdigit():
                    time.sleep(int(again) * random.uniform(0.5, 1.0))
                    continue
                raise ServiceError(_said(error.read()), status=error.code, where=self._url) from error
            except (OSError, ValueError) as error:
                reason = getattr(error, "reason", error)
                raise ServiceError(f"it cannot be reached ({reason})", status=0, where=self._url) from error
        raise ServiceError("it is busy", status=429, where=self._url)


def _trace() -> dict[str, str]:
    """The header by which the service continues the trace of the span that this thread is in, where OpenTelemetry is used."""
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


def _context(ca: str | Path | None, certificate: tuple[str | Path, str | Path] | None) -> ssl.SSLContext:
    """Raises `DataError` where a file is none of TLS."""
    place: str | Path = ca or ""
    try:
        found = ssl.create_default_context(cafile=ca)
        found.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            place = certificate[0]
            found.load_cert_chain(*certificate, password=b"")
    except OSError as error:  # of which those of TLS are some
        reason = getattr(error, "reason", None) or error.strerror
        raise DataError(f"cannot be used ({reason})", where=str(place), hint="give a file in PEM") from error
    return found


def _content(path: Path) -> bytes:
    """Raises `DataError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path), hint="check the path") from error


def _model(name: str) -> str:
    return f"/v2/models/{quote(name, safe='')}"


def _job(found: Mapping[str, Any]) -> Job:
    return Job(
        model=found["model_name"],
        id=found.get("job", ""),
        state=found.get("state", "done"),
        version=found.get("model_version", ""),
        error=found.get("error", ""),
        masked=found.get("masked", 0),
    )


def _warn_masked(model: str, found: Mapping[str, Any]) -> None:
    if found.get("masked"):
        _log.warning("%s: labels changed by masking before they were stored: %s", model, found["masked"])


def _column(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A column; None and NaN are missing values."""
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise DataError(f"'{values}' is one value", where=f"column '{name}'", hint="give a list of them, one a row")
    gaps = [value is None or value != value for value in values]  # noqa: PLR0124 - NaN
    array = np.asarray([value for value, gap in zip(values, gaps, strict=True) if not gap])
    datatype = _TYPES.get(array.dtype.kind, "BYTES") if len(array) else "BYTES"
    there = iter(array.tolist() if datatype != "BYTES" else [str(value) for value in array])
    if datatype == "INT64" and any(gaps):
        datatype = "FP64"
    data = [None if gap else next(there) for gap in gaps]
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def _label(label: Any) -> str:
    """A label as text. Raises `DataError` for what is none."""
    if label is None or label != label or not isinstance(label, str | int | float | np.generic):  # noqa: PLR0124 - NaN
        raise DataError(f"{label!r} is no label", where="the labels", hint="give a text or a number for each sample")
    return str(label)


def _said(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace")[:200]
