"""Packages that are signed: which keys are trusted, and a package's files exactly as the holder of such a key signed them.

The signature is ``package.sig`` in the package's folder: the names and SHA-256 of all files, signed with an elliptic-curve key, as a
Sigstore bundle (DSSE, in-toto) that `model-signing` writes and verifies. What is verified is a copy that only this user can reach, and the
copy is what is loaded: a file that is exchanged afterwards reaches nobody.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import tempfile
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

from mapsto_runtime.errors import MapstoError, MissingExtra, SpecError, StoreError, TrustError, command, trouble
from mapsto_runtime.manifest import Manifest, read_manifest
from mapsto_runtime.regular_files import open_file, read_file
from mapsto_runtime.shown import few, short

__all__ = [
    "KEYS_VARIABLE",
    "SIGNATURE",
    "UNSIGNED_VARIABLE",
    "Trust",
    "Verified",
    "copied",
    "fingerprint_of",
    "verified",
]

SIGNATURE: Final = "package.sig"
"""The file of a signature, in the package's folder."""
KEYS_VARIABLE: Final = "MAPSTO_TRUSTED_KEYS"
"""Files of public keys that are trusted, with `os.pathsep` between them."""
UNSIGNED_VARIABLE: Final = "MAPSTO_UNSIGNED"
"""``warn`` or ``refuse``."""

Unsigned = Literal["", "warn", "refuse"]

_MOST_BYTES: Final = 16 << 20
"""Of a signature: 100,000 files."""
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_UNFIT: Final = "do not use this package; have it signed again by whoever made it"


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whose packages are loaded.

    >>> Trust().refuses_unsigned, Trust(keys=("-----BEGIN PUBLIC KEY-----…",)).refuses_unsigned
    (False, True)
    """

    keys: tuple[str, ...] = ()
    """Public keys, PEM. Without any, no signature is verified."""
    unsigned: Unsigned = ""
    """``warn``: load unsigned packages and say so. ``refuse``: do not. Empty: refuse where keys are trusted; load without a word where none
    are."""

    def __post_init__(self) -> None:
        if self.unsigned not in ("", "warn", "refuse"):
            raise SpecError(
                f"'{short(self.unsigned)}' says nothing of unsigned packages",
                where=f"--unsigned or {UNSIGNED_VARIABLE}",
                hint="give warn or refuse",
            )
        if self.unsigned == "refuse" and not self.keys:
            raise SpecError(
                "unsigned packages are refused and no key is trusted, so that none could be loaded",
                where=f"--unsigned or {UNSIGNED_VARIABLE}",
                hint=f"give --trusted-key, or {KEYS_VARIABLE}, the public key of whoever signs packages",
            )

    @property
    def refuses_unsigned(self) -> bool:
        """Whether a package without a signature is refused."""
        return self.unsigned == "refuse" or (bool(self.keys) and not self.unsigned)

    @classmethod
    def of(
        cls,
        keys: Sequence[Path | str] = (),
        unsigned: str = "",
        *,
        beside: tuple[Sequence[str], str] = ((), ""),
        environ: Mapping[str, str] | None = None,
    ) -> Trust:
        """What is given, as files of public keys; what is not given is taken from the environment, then from `beside`.

        `beside` are keys and policy that lie beside a package, as in its recipe: whoever can exchange the package can change them too. So
        they never add to keys that are given otherwise, nor let unsigned packages pass then.

        Raises
        ------
        SpecError
            A file holds no public key that packages are signed with, or `unsigned` is not known.
        MissingExtra
            Keys are given, and `model-signing` is not installed.
        """
        environ = os.environ if environ is None else environ
        named = [str(key) for key in keys] or [
            each for each in environ.get(KEYS_VARIABLE, "").split(os.pathsep) if each
        ]
        policy = unsigned or environ.get(UNSIGNED_VARIABLE, "")
        if not policy and (not named or beside[1] == "refuse"):
            policy = beside[1]
        named = named or list(beside[0])
        return cls(keys=tuple(map(_public_key, named)), unsigned=cast("Unsigned", policy))

    @classmethod
    def from_plain(cls, tree: Mapping[str, Any]) -> Trust:
        """Of `dataclasses.asdict`, as another process is given it."""
        return cls(keys=tuple(tree["keys"]), unsigned=tree["unsigned"])


class Verified:
    """A package that may be loaded.

    Attributes
    ----------
    given
        The folder that was asked for.
    folder
        What is to be loaded: `given`, or where a signature was verified the copy that was. It lasts as long as this object.
    signer
        The fingerprint of the key that signed it; empty where nothing was verified.
    note
        What is to be said; empty for nothing.
    """

    def __init__(
        self,
        given: Path,
        *,
        copy: tempfile.TemporaryDirectory[str] | None = None,
        folder: Path | None = None,
        signer: str = "",
        note: str = "",
    ) -> None:
        self.given, self.folder, self.signer, self.note = given, folder or given, signer, note
        if copy is not None:
            weakref.finalize(self, copy.cleanup)

    def manifest(self) -> Manifest:
        """As `read_manifest`, whose errors name the folder that was given."""
        with self.explained():
            return read_manifest(self.folder)

    @contextmanager
    def explained(self) -> Generator[None]:
        """Errors within name the folder that was given in place of the copy's."""
        try:
            yield
        except MapstoError as error:
            if error.where is not None:
                error.where = error.where.replace(str(self.folder), str(self.given))
            raise


def verified(folder: Path, trust: Trust) -> Verified:
    """A package as it may be loaded.

    Raises
    ------
    TrustError
        It is not signed, and such are refused; it is signed by another key; a file was added, is missing or was changed; the signature
        cannot be read or does not hold.
    StoreError
        There is no package, or a file cannot be read or copied.
    MissingExtra
        `model-signing` is not installed.
    """
    if not os.path.lexists(folder / SIGNATURE):
        return _unsigned(folder, trust)
    if not trust.keys:
        said = f"{folder}: is signed, and no key is trusted here: its signature was not verified"
        return Verified(folder, note=f"{said}; give --trusted-key or {KEYS_VARIABLE}")
    signature = _content(folder)
    signed = _signed(signature, folder)
    keys = {fingerprint_of(key): key for key in trust.keys}
    if signed.signer not in keys:
        raise TrustError(
            f"the package is signed with the key {short(signed.signer[:16])}, which is not trusted",
            where=str(folder),
            hint=f"trusted: {few([each[:16] for each in keys])}; if its key is to be, give it with --trusted-key or {KEYS_VARIABLE}",
        )
    place = private_folder()
    try:
        inside = Path(place.name)
        copy = inside / "files" / (folder.resolve().name or "package")
        _require_alike(copied(folder, copy, known=signed.files), signed.files, folder)
        for name, content in ((SIGNATURE, signature), ("key.pem", keys[signed.signer].encode())):
            (inside / name).write_bytes(content)
        _verify(copy, inside / SIGNATURE, inside / "key.pem", folder)
        return Verified(folder, copy=place, folder=copy, signer=signed.signer)
    except BaseException:
        place.cleanup()
        raise


def private_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that only this user can enter; `mapsto serve` removes those of processes that were killed."""
    return tempfile.TemporaryDirectory(prefix=f"mapsto-{os.getpid()}-", ignore_cleanup_errors=True)


def copied(folder: Path, copy: Path, *, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Copy a package's files but for its signature: name → SHA-256 of what was written.

    Raises
    ------
    TrustError
        A file is not in `known`, or is a link or a device.
    StoreError
        A file cannot be read or written.
    """
    found: dict[str, str] = {}
    try:
        for name, path in _files(folder, folder):
            if name == SIGNATURE:
                continue
            if known is not None and name not in known:
                raise TrustError(
                    f"'{short(name)}' was added to the package after it was signed", where=str(folder), hint=_UNFIT
                )
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with open_file(path) as source, (copy / name).open("xb") as target:
                while block := source.read(1 << 20):
                    digest.update(block)
                    target.write(block)
            found[name] = digest.hexdigest()
    except (OSError, ValueError) as error:
        what, remedy = trouble(error) if isinstance(error, OSError) else (str(error), "export the package again")
        raise StoreError(
            f"the package cannot be copied, to be verified or signed ({what})", where=str(folder), hint=remedy
        ) from error
    return found


def fingerprint_of(key: str) -> str:
    """The SHA-256 of a public key, by which signatures name it. Raises `ValueError` for what is none."""
    from cryptography.hazmat.primitives import serialization

    content = serialization.load_pem_public_key(key.encode()).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------------------------------------------------------ private


class _Signed(NamedTuple):
    signer: str
    files: dict[str, str]
    """Name → SHA-256."""


def _unsigned(folder: Path, trust: Trust) -> Verified:
    if trust.refuses_unsigned and (folder / "manifest.json").is_file():  # what is no package is said by who reads it
        raise TrustError(
            "the package is not signed, and only signed ones are loaded here",
            where=str(folder),
            hint=f"sign it with `{command('mapsto package sign {folder} --key KEY.pem', folder=folder)}`, or give --unsigned warn",
        )
    return Verified(folder, note=f"{folder}: is not signed" if trust.unsigned == "warn" else "")


def _content(folder: Path) -> bytes:
    path = folder / SIGNATURE
    try:
        if path.is_symlink() or path.stat().st_size > _MOST_BYTES:
            raise TrustError("its signature is a link, or too large", where=str(path), hint=_UNFIT)
        return read_file(path)
    except OSError as error:
        raise StoreError(
            f"the signature cannot be read ({error.strerror})", where=str(path), hint="check the permissions"
        ) from error


def _signed(content: bytes, folder: Path) -> _Signed:
    """Who signed which files, as the signature says; whether that holds is seen by `_verify`."""
    try:
        tree = json.loads(content)
        signer = tree["verificationMaterial"]["publicKey"]["hint"]
        statement = json.loads(base64.b64decode(tree["dsseEnvelope"]["payload"], validate=True))
        predicate = statement["predicate"]
        how = predicate["serialization"]
        files = {
            str(each["name"]): str(each["digest"]) for each in predicate["resources"] if each["algorithm"] == "sha256"
        }
        whole = (
            isinstance(signer, str)
            and bool(signer)
            and statement["predicateType"] == _PREDICATE
            and how["method"] == "files"
            and len(files) == len(predicate["resources"])
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise TrustError(
            f"the signature is damaged or cut off ({type(error).__name__})",
            where=str(folder / SIGNATURE),
            hint="copy the package again with all its files, or have it signed again",
        ) from error
    if not whole:
        raise TrustError(
            "the signature does not give the SHA-256 of each file and its key",
            where=str(folder / SIGNATURE),
            hint=f"sign it with `{command('mapsto package sign {folder} --key KEY.pem', folder=folder)}`",
        )
    return _Signed(signer, files)


def _files(folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        name = path.relative_to(root).as_posix()
        if entry.is_dir(follow_symlinks=False):
            yield from _files(path, root)
        elif entry.is_file(follow_symlinks=False):
            yield name, path
        else:
            raise TrustError(
                f"'{short(name)}' is a link or a device, and a signed package holds files alone",
                where=str(root),
                hint="copy what it points to in its place, and sign the package then",
            )


def _require_alike(found: Mapping[str, str], signed: Mapping[str, str], folder: Path) -> None:
    missing = sorted(set(signed) - set(found))
    changed = sorted(name for name, digest in found.items() if signed.get(name) != digest)
    if missing or changed:
        said = [
            f"{how}: {few([short(name) for name in names])}"
            for names, how in ((missing, "missing"), (changed, "changed"))
            if names
        ]
        raise TrustError(
            f"the package is not the one that was signed; {'; '.join(said)}", where=str(folder), hint=_UNFIT
        )


def _verify(copy: Path, signature: Path, key: Path, folder: Path) -> None:
    """Whether the key has signed exactly the files of the copy. Raises `TrustError`."""
    verifying = _model_signing("verifying")
    hashing = _model_signing("hashing")
    try:
        whole = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
        config = verifying.Config().set_hashing_config(whole).use_elliptic_key_verifier(public_key=key)
        config.verify(copy, signature)
    except Exception as error:  # of whatever a forged file makes the libraries stumble over
        raise TrustError(
            f"the signature does not hold: it was not made with its key for these files ({type(error).__name__})",
            where=str(folder),
            hint=_UNFIT,
        ) from error


def _model_signing(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"model_signing.{module}")
    except ImportError as error:
        raise MissingExtra("model-signing", "sign", where="a package's signature") from error


def _make_key() -> str:
    return command("mapsto package make-key KEY.pem")


def _public_key(place: str) -> str:
    """The text of a public key's file."""
    _model_signing("verifying")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        path = Path(place).expanduser()
    except RuntimeError as error:  # ~NAME of nobody here
        raise SpecError(
            f"cannot be read ({error})", where=place, hint="give the whole path of a public key's file (PEM)"
        ) from error
    try:
        text = read_file(path).decode("ascii")
        key = serialization.load_pem_public_key(text.encode())
    except OSError as error:
        raise SpecError(
            f"cannot be read ({error.strerror})", where=place, hint="give the file of a public key (PEM)"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        private = "it holds a private key" if b"PRIVATE KEY" in read_file(path) else str(error)
        raise SpecError(
            f"is no public key ({private.splitlines()[0]})",
            where=place,
            hint=f"give the file NAME.pub.pem that `{_make_key()}` wrote beside the private one",
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise SpecError(
            "is no key of a curve that packages are signed with",
            where=place,
            hint=f"allowed: {', '.join(_CURVES)}; `{_make_key()}` makes one",
        )
    return text
