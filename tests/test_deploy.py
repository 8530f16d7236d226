"""What is deployed names what there is: manifests hold by Kubernetes' own schemas, and the image's commands and files exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
OVERLAYS = sorted((DEPLOY / "kubernetes" / "overlays").iterdir())


def built(overlay: Path) -> list[Any]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which builds overlays, is not installed")
    done = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda each: each.name)
def test_an_overlay_holds_by_the_schemas_and_is_confined(overlay: Path) -> None:
    objects = {each["kind"]: each for each in built(overlay)}
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector
        assert selector.items() <= labels.items()
    assert pod["securityContext"]["runAsNonRoot"]
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert {each["name"] for each in container["volumeMounts"]} <= {each["name"] for each in pod["volumes"]}
    assert (
        objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
        == objects["Deployment"]["metadata"]["name"]
    )


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda each: each.name)
def test_an_overlay_holds_by_kubernetes_own_schemas(overlay: Path) -> None:
    schemas = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate (108 MB of schemas) is not installed"
    )
    for each in built(overlay):
        schemas.validate(each, "1.32", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda each: each.name)
def test_pods_ask_for_routes_and_options_that_there_are(overlay: Path) -> None:
    import typer.main

    from mapsto.cli.main import app
    from mapsto.recipe.serving import Serving
    from mapsto.service.routes import PUBLIC

    objects = {each["kind"]: each for each in built(overlay)}
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert {each["path"] for each in probes} <= PUBLIC
    command: Any = typer.main.get_command(app)
    known = {name for each in command.commands["serve"].params for name in each.opts}
    assert {each for each in container["args"] if each.startswith("--")} <= known
    said = Serving.model_validate(yaml.safe_load(objects["ConfigMap"]["data"]["recipe.yaml"])["serve"])
    assert [each["containerPort"] for each in container["ports"]] == [said.port]
    assert objects["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == said.port
    assert pod["terminationGracePeriodSeconds"] >= said.window + 30 + 10


def test_the_image_copies_files_and_starts_commands_that_there_are() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    named = [name for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for name in line.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in named:
        assert (ROOT / name).exists(), name
        assert f"!{name.removeprefix('./')}" in ignored, f"{name} is not sent to the build"
    scripts: set[str] = set()
    for project in (ROOT / "pyproject.toml", ROOT / "runtime" / "pyproject.toml"):
        scripts |= set(tomllib.loads(project.read_text())["project"]["scripts"])
    assert set(re.findall(r'^ENTRYPOINT \["(.+)"\]$', text, re.MULTILINE)) == scripts
    assert "USER 10001" in text


def test_the_image_is_written_as_the_linter_wants_it() -> None:
    if shutil.which("hadolint") is None and not (ROOT / ".venv" / "bin" / "hadolint").exists():
        pytest.skip("hadolint is not installed")
    linter = shutil.which("hadolint") or str(ROOT / ".venv" / "bin" / "hadolint")
    done = subprocess.run([linter, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
