"""Sign a package: the SHA-256 of each of its files, signed with an elliptic-curve key (ECDSA, NIST P-256 unless the key says otherwise).

The form is that of the OpenSSF for models: `model-signing`, a Sigstore bundle over an in-toto statement. `mapsto_runtime.signed_package`
verifies it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple, cast

from mapsto.atomic import new_file
from mapsto.errors import MissingExtra, SpecError, command, trouble
from mapsto_runtime.manifest import read_manifest
from mapsto_runtime.regular_files import read_file
from mapsto_runtime.signed_package import SIGNATURE, copied, fingerprint_of, private_folder

__all__ = ["PASSWORD_VARIABLE", "KeyPair", "make_key", "sign_package"]

PASSWORD_VARIABLE = "MAPSTO_SIGNING_PASSWORD"
"""The password of a private key that is encrypted."""


class KeyPair(NamedTuple):
    """Where the keys of a pair were written."""

    private: Path
    public: Path
    fingerprint: str


def make_key(place: Path) -> KeyPair:
    """A new key pair on NIST P-256: the private key for its user's eyes alone, the public one beside it as ``NAME.pub.pem``.

    The private key is encrypted where `PASSWORD_VARIABLE` is set. Raises `SpecError` where a file is there already or cannot be written.
    """
    _model_signing("signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    password = _password()
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    beside = place.with_name(f"{place.name.removesuffix('.pem')}.pub.pem")
    for path, content, mode in ((place, private, 0o600), (beside, public, 0o644)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
        except FileExistsError as error:
            raise SpecError(
                "is there already, and a key is not overwritten", where=str(path), hint="give another name"
            ) from error
        except OSError as error:
            what, remedy = trouble(error)
            raise SpecError(f"the key cannot be written ({what})", where=str(path), hint=remedy) from error
    return KeyPair(place, beside, fingerprint_of(public.decode()))


def sign_package(folder: Path, key: Path) -> str:
    """Sign all files of a package into its ``package.sig``; gives the key's fingerprint.

    Raises
    ------
    SpecError
        The file holds no private key that packages can be signed with, or its password is missing or wrong.
    StoreError, TrustError
        There is no package, it is not whole, holds links, or the signature cannot be written.
    """
    signing, hashing = _model_signing("signing"), _model_signing("hashing")
    fingerprint = _fingerprint(key)
    read_manifest(folder)
    with private_folder() as place:
        copy = Path(place) / "files" / (folder.resolve().name or "package")
        copied(folder, copy)
        read_manifest(copy)  # what is signed is whole
        whole = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
        config = signing.Config().set_hashing_config(whole)
        config.use_elliptic_key_signer(private_key=key, password=cast("Any", _password()))
        config.sign(copy, Path(place) / SIGNATURE)
        content = (Path(place) / SIGNATURE).read_bytes()
    try:
        with new_file(folder / SIGNATURE) as written:
            written.write_bytes(content)
    except OSError as error:
        what, remedy = trouble(error)
        raise SpecError(f"the signature cannot be written ({what})", where=str(folder), hint=remedy) from error
    return fingerprint


def _fingerprint(place: Path) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    make = f"`{command('mapsto package make-key KEY.pem')}` makes one"
    try:
        key = serialization.load_pem_private_key(read_file(place), _password())
    except OSError as error:
        raise SpecError(
            f"the key cannot be read ({error.strerror})", where=str(place), hint=f"give a private key; {make}"
        ) from error
    except TypeError as error:  # a password too few or too many
        raise SpecError(
            str(error), where=str(place), hint=f"set {PASSWORD_VARIABLE} to the key's password, or unset it"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SpecError(
            f"is no private key, or its password is another ({str(error).splitlines()[0]})",
            where=str(place),
            hint=f"give a private key (PEM), and its password in {PASSWORD_VARIABLE}; {make}",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
        raise SpecError("is no key on the curves P-256, P-384 or P-521", where=str(place), hint=make)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return fingerprint_of(public.decode())


def _password() -> bytes | None:
    return os.environ.get(PASSWORD_VARIABLE, "").encode() or None


def _model_signing(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"model_signing.{module}")
    except ImportError as error:
        raise MissingExtra("model-signing", "sign", where="mapsto package") from error
