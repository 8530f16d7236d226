"""``mapsto package``: sign packages, and see who signed one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mapsto.cli.app import JsonOption, app, print_json, print_note, print_text

__all__ = ["TrustedKeysOption", "UnsignedOption"]

package_app = typer.Typer(help="Sign packages, and verify who signed one.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(package_app, name="package")

TrustedKeysOption = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-key",
        metavar="FILE",
        help="Load packages that are signed with this key alone: its public key (PEM). Give several for several. "
        "[default: $MAPSTO_TRUSTED_KEYS]",
    ),
]
UnsignedOption = Annotated[
    str | None,
    typer.Option(
        "--unsigned",
        metavar="warn|refuse",
        help="What becomes of packages that are not signed. By default they are refused where a key is trusted. "
        "[default: $MAPSTO_UNSIGNED]",
    ),
]
_PackageArgument = Annotated[
    Path, typer.Argument(help="A package's folder, or the --out folder of a run that made one.")
]


@package_app.command("make-key")
def package_make_key(
    place: Annotated[Path, typer.Argument(metavar="KEY.pem", help="The file of the new private key.")],
    as_json: JsonOption = False,
) -> None:
    """Make a pair of keys to sign packages with: KEY.pem, to be kept secret, and KEY.pub.pem, for those who load them.

    The private key is encrypted where MAPSTO_SIGNING_PASSWORD is set.

    Example: mapsto package make-key KEY.pem
    """
    from mapsto.nn.export.package_signing import make_key

    made = make_key(place)
    if as_json:
        print_json({"private": str(made.private), "public": str(made.public), "key": made.fingerprint})
        return
    print_text(f"{made.private}: the private key; keep it secret")
    print_text(f"{made.public}: the public key {made.fingerprint[:16]}, for --trusted-key")


@package_app.command("sign")
def package_sign(
    package: _PackageArgument,
    key: Annotated[
        Path, typer.Option(metavar="KEY.pem", help="The private key, on an elliptic curve (P-256, P-384, P-521).")
    ],
    as_json: JsonOption = False,
) -> None:
    """Sign every file of a package, into its file package.sig. A signature that is there is replaced.

    Example: mapsto package sign runs/demo --key KEY.pem
    """
    from mapsto.nn.export.package_signing import sign_package
    from mapsto_runtime.answer_rows import package_folder
    from mapsto_runtime.signed_package import SIGNATURE

    folder = package_folder(package)
    signer = sign_package(folder, key)
    if as_json:
        print_json({"package": str(folder), "signature": str(folder / SIGNATURE), "key": signer})
        return
    print_text(f"{folder / SIGNATURE}: signed with the key {signer[:16]}")


@package_app.command("verify")
def package_verify(
    package: _PackageArgument,
    trusted_keys: TrustedKeysOption = None,
    unsigned: Annotated[
        str | None,
        typer.Option(
            "--unsigned",
            metavar="warn|refuse",
            help="What becomes of a package that nobody has signed; refused by default, whatever $MAPSTO_UNSIGNED says.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say who signed a package; exit code 2 where that is nobody who is trusted, or a file is not as it was signed.

    Example: mapsto package verify runs/demo --trusted-key KEY.pub.pem
    """
    from mapsto.errors import SpecError
    from mapsto_runtime.answer_rows import package_folder
    from mapsto_runtime.signed_package import KEYS_VARIABLE, Trust, verified

    if not (trusted_keys or os.environ.get(KEYS_VARIABLE)):
        raise SpecError(
            "no key is given, so that no signature can be verified",
            where="mapsto package verify",
            hint=f"give --trusted-key, or {KEYS_VARIABLE}, the public key of whoever signs packages",
        )
    found = verified(package_folder(package), Trust.of(trusted_keys or (), unsigned or "refuse"))
    found.manifest()
    if found.note:
        print_note(found.note)
    if as_json:
        print_json({"package": str(found.given), "signed": bool(found.signer), "key": found.signer or None})
        return
    print_text(
        f"{found.given}: every file is as it was signed with the key {found.signer[:16]}"
        if found.signer
        else f"{found.given}: is whole, and nobody has signed it"
    )
