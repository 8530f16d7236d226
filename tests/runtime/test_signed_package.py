"""A package is loaded as the holder of a trusted key signed it, or not at all."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.packages import linear_package
from tests.command import mapsto

from mapsto.errors import MapstoError, SpecError, TrustError
from mapsto.nn.export.package_signing import PASSWORD_VARIABLE, make_key, sign_package
from mapsto_runtime import signed_package
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.signed_package import KEYS_VARIABLE, SIGNATURE, UNSIGNED_VARIABLE, Trust, fingerprint_of, verified

pytest.importorskip("model_signing", reason="the extra `sign` is not installed")

ROW = np.array([[1.0, 2.0, 3.0]], np.float32)


@pytest.fixture(autouse=True)
def _no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEYS_VARIABLE, UNSIGNED_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """``signs``, signed with ``ours.pem``, with a file in a folder of its own."""
    folder = linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    (folder / "examples").mkdir()
    (folder / "examples" / ".note").write_text("of an example", encoding="utf-8")
    make_key(tmp_path / "ours.pem")
    make_key(tmp_path / "theirs.pem")
    sign_package(folder, tmp_path / "ours.pem")
    return folder


@pytest.fixture
def ours(signed: Path) -> Trust:
    return Trust.of([signed.parent / "ours.pub.pem"])


def test_what_is_signed_is_loaded_from_a_copy_that_lasts_as_long_as_it_is_used(signed: Path, ours: Trust) -> None:
    predictor = Predictor(signed, trust=ours)
    copy = predictor.verified.folder
    assert copy != signed
    assert copy.parent.parent.stat().st_mode & 0o077 == 0
    assert predictor.verified.signer == fingerprint_of(ours.keys[0])
    assert predictor.outputs(ROW).shape == (1, 2)
    del predictor
    assert not copy.exists()


def test_it_can_be_moved_and_renamed(signed: Path, ours: Trust) -> None:
    assert verified(signed.rename(signed.parent / "another name"), ours).signer


def _added(folder: Path) -> None:
    (folder / "examples" / "more.png").write_bytes(b"")


def _added_of_git(folder: Path) -> None:  # which the library's own defaults leave out
    (folder / ".gitignore").write_bytes(b"*")


def _missing(folder: Path) -> None:
    (folder / "examples" / ".note").unlink()


def _changed(folder: Path) -> None:
    (folder / "examples" / ".note").write_text("of an examplE", encoding="utf-8")


def _changed_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")


def _renamed(folder: Path) -> None:
    (folder / "examples" / ".note").rename(folder / "note")


def _linked(folder: Path) -> None:
    content = (folder / "examples" / ".note").rename(folder.parent / "note")
    (folder / "examples" / ".note").symlink_to(content)


def _signed_by_another(folder: Path) -> None:
    sign_package(folder, folder.parent / "theirs.pem")


def _cut(folder: Path) -> None:
    path = folder / SIGNATURE
    path.write_bytes(path.read_bytes()[:-200])


def _empty(folder: Path) -> None:
    (folder / SIGNATURE).write_bytes(b"")


def _removed(folder: Path) -> None:
    (folder / SIGNATURE).unlink()


def _link_to_nothing(folder: Path) -> None:
    (folder / SIGNATURE).unlink()
    (folder / SIGNATURE).symlink_to("nowhere")


def _under_our_name(folder: Path) -> None:
    """Another's signature, which says that it is ours."""
    ours = json.loads((folder / SIGNATURE).read_text())["verificationMaterial"]
    sign_package(folder, folder.parent / "theirs.pem")
    tree = json.loads((folder / SIGNATURE).read_text())
    (folder / SIGNATURE).write_text(json.dumps({**tree, "verificationMaterial": ours}))


def _of_another_package(folder: Path) -> None:
    other = linear_package(folder.parent / "other", [[2.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    sign_package(other, folder.parent / "ours.pem")
    shutil.copy(other / SIGNATURE, folder / SIGNATURE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_added, "'examples/more.png' was added"),
        (_added_of_git, "'.gitignore' was added"),
        (_missing, "missing: examples/.note"),
        (_changed, "changed: examples/.note"),
        (_changed_manifest, "changed: manifest.json"),
        (_renamed, "'note' was added"),
        (_linked, "'examples/.note' is a link"),
        (_signed_by_another, "which is not trusted"),
        (_cut, "damaged or cut off"),
        (_empty, "damaged or cut off"),
        (_removed, "not signed"),
        (_link_to_nothing, "is a link"),
        (_under_our_name, "does not hold"),
        (_of_another_package, "was added"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_is_not_as_it_was_signed_is_refused(
    signed: Path, ours: Trust, change: Callable[[Path], None], said: str
) -> None:
    change(signed)
    with pytest.raises(TrustError, match=said) as caught:
        Predictor(signed, trust=ours)
    assert str(signed) in str(caught.value.where)
    assert caught.value.hint
    assert not list(Path(caught.value.where or "").parent.glob("mapsto-*"))


def test_what_the_signer_left_out_is_refused(signed: Path, ours: Trust) -> None:
    """A signature may name paths that are passed over; none are here."""
    from model_signing import hashing, signing

    config = hashing.Config().set_ignored_paths(paths=["examples", SIGNATURE], ignore_git_paths=True)
    signer = signing.Config().set_hashing_config(config).use_elliptic_key_signer(private_key=signed.parent / "ours.pem")
    signer.sign(signed, signed.parent / "new")
    (signed.parent / "new").replace(signed / SIGNATURE)
    with pytest.raises(TrustError, match="added to the package"):
        verified(signed, ours)


def test_a_file_that_is_exchanged_after_it_was_verified_reaches_nobody(
    signed: Path, ours: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = linear_package(signed.parent / "evil", [[9.0, 9, 9], [-9, -9, -9]], ("low", "high"))
    expected = Predictor(signed, trust=ours).outputs(ROW)
    verify = signed_package._verify

    def swapped(*given: Any) -> None:
        verify(*given)
        for name in ("model.onnx", "manifest.json"):
            shutil.copy(evil / name, signed / name)

    monkeypatch.setattr(signed_package, "_verify", swapped)
    assert np.array_equal(Predictor(signed, trust=ours).outputs(ROW), expected)
    assert not np.array_equal(Predictor(evil).outputs(ROW), expected)


def test_another_program_of_the_same_form_verifies_it(signed: Path) -> None:
    from model_signing import hashing, verifying

    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    key = signed.parent / "ours.pub.pem"
    verifying.Config().set_hashing_config(config).use_elliptic_key_verifier(public_key=key).verify(
        signed, signed / SIGNATURE
    )


def test_one_of_several_keys_is_enough(signed: Path) -> None:
    both = Trust.of([signed.parent / "theirs.pub.pem", signed.parent / "ours.pub.pem"])
    assert verified(signed, both).signer == fingerprint_of(both.keys[1])


def test_unsigned_packages_are_refused_where_a_key_is_trusted_unless_asked_for(signed: Path) -> None:
    key = [signed.parent / "ours.pub.pem"]
    _removed(signed)
    with pytest.raises(TrustError, match="not signed"):
        verified(signed, Trust.of(key))
    assert "is not signed" in verified(signed, Trust.of(key, "warn")).note
    assert "is not signed" in verified(signed, Trust.of((), "warn")).note
    assert not verified(signed, Trust.of()).note


def test_a_signature_that_nobody_verifies_is_said(signed: Path) -> None:
    assert "was not verified" in verified(signed, Trust.of()).note


def test_what_lies_beside_a_package_weakens_nothing(signed: Path) -> None:
    ours, theirs = (str(signed.parent / name) for name in ("ours.pub.pem", "theirs.pub.pem"))
    given = Trust.of([ours], beside=([theirs], "warn"))
    assert given == Trust.of([ours])
    assert Trust.of(beside=([theirs], "warn"), environ={KEYS_VARIABLE: ours}) == given
    assert Trust.of([ours], beside=((), "refuse")).refuses_unsigned
    assert Trust.of(beside=([theirs], "warn")) == Trust.of([theirs], "warn")


@pytest.mark.parametrize(
    ("keys", "unsigned", "said"),
    [
        (("nowhere.pem",), "", "cannot be read"),
        (("ours.pem",), "", "a private key"),
        (("signs/manifest.json",), "", "no public key"),
        ((), "refuse", "none could be loaded"),
        ((), "perhaps", "says nothing"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(
    signed: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...], unsigned: str, said: str
) -> None:
    monkeypatch.chdir(signed.parent)
    with pytest.raises(SpecError, match=said):
        Trust.of(keys, unsigned)


def test_a_key_of_another_kind_is_refused(tmp_path: Path, signed: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    encodings = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "ed.pub.pem").write_bytes(key.public_key().public_bytes(*encodings))
    private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "ed.pem").write_bytes(key.private_bytes(*private))
    with pytest.raises(SpecError, match="curve"):
        Trust.of([tmp_path / "ed.pub.pem"])
    with pytest.raises(SpecError, match="curves"):
        sign_package(signed, tmp_path / "ed.pem")


def test_a_key_on_an_unknown_curve_or_of_an_unknown_home_is_a_mistake_of_its_user(tmp_path: Path, signed: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, der = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.DER
    no_password = serialization.NoEncryption()
    public = key.public_key().public_bytes(der, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(der, serialization.PrivateFormat.PKCS8, no_password)
    p_256, sm2 = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a811ccf5501822d")  # SM2: cryptography has none
    for name, kind, content in (("sm2.pub.pem", "PUBLIC", public), ("sm2.pem", "PRIVATE", private)):
        text = base64.encodebytes(content.replace(p_256, sm2)).decode()
        (tmp_path / name).write_text(f"-----BEGIN {kind} KEY-----\n{text}-----END {kind} KEY-----\n")
    with pytest.raises(SpecError, match="is no public key"):
        Trust.of([tmp_path / "sm2.pub.pem"])
    with pytest.raises(SpecError, match="is no private key"):
        sign_package(signed, tmp_path / "sm2.pem")
    with pytest.raises(SpecError, match="cannot be read"):
        Trust.of(["~nobody-of-this-name/KEY.pub.pem"])


def test_a_private_key_may_have_a_password(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
    made = make_key(signed.parent / "locked.pem")
    assert "ENCRYPTED" in made.private.read_text(encoding="utf-8")
    assert made.private.stat().st_mode & 0o077 == 0
    assert verified(signed, Trust.of([signed.parent / "ours.pub.pem"])).signer != made.fingerprint
    sign_package(signed, made.private)
    assert verified(signed, Trust.of([made.public])).signer == made.fingerprint
    for password in ("", "another"):
        monkeypatch.setenv(PASSWORD_VARIABLE, password)
        with pytest.raises(SpecError, match=PASSWORD_VARIABLE):
            sign_package(signed, made.private)


def test_a_package_that_is_not_whole_is_not_signed(signed: Path) -> None:
    (signed / "model.onnx").write_bytes(b"another")
    before = (signed / SIGNATURE).read_bytes()
    with pytest.raises(MapstoError, match=r"model\.onnx"):
        sign_package(signed, signed.parent / "ours.pem")
    assert (signed / SIGNATURE).read_bytes() == before


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    np.save("row.npy", ROW)
    predict = ("predict", "signs", "row.npy")
    made = json.loads(mapsto("package", "make-key", "our.pem", "--json", code=0).out)
    assert made["public"] == "our.pub.pem"
    assert "is there already" in mapsto("package", "make-key", "our.pem", code=2).err
    assert "not signed" in mapsto(*predict, "--trusted-key", "our.pub.pem", code=2).err
    assert "is not signed" in mapsto(*predict, "--trusted-key", "our.pub.pem", "--unsigned", "warn", code=0).err
    assert made["key"][:16] in mapsto("package", "sign", "signs", "--key", "our.pem", code=0).out
    assert "low" in mapsto(*predict, "--trusted-key", "our.pub.pem", code=0).out
    monkeypatch.setenv(KEYS_VARIABLE, "our.pub.pem")
    assert json.loads(mapsto("package", "verify", "signs", "--json", code=0).out)["key"] == made["key"]
    (tmp_path / "signs" / "model.onnx").write_bytes(b"another")
    for words in (predict, ("package", "verify", "signs"), ("stream", "row.npy", "--from", "signs")):
        assert "changed: model.onnx" in " ".join(mapsto(*words, code=2).err.split())
