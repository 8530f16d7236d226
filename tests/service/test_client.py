"""The Python client against a service that runs: images, rows and tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mapsto.errors import DataError, DomainError
from mapsto.service.client import Client, ServiceError
from tests.cli.packages import color_package, linear_package, table_package
from tests.service.served import Served, serving


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    linear_package(folder / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    color_package(folder / "colours")
    table_package(folder / "table")
    with serving(*(folder / name for name in ("signs", "colours", "table")), folder=folder) as served:
        yield served


@pytest.fixture
def client(service: Served) -> Client:
    return Client(service.url, service.key)


def test_tensors_are_answered_and_labelled(client: Client) -> None:
    answer = client.infer("signs", np.array([[2.0, 0, 0], [-3, 0, 0]]))
    assert (answer.labels, answer.scores.tolist(), answer.version) == (("low", "high"), [[2, -2], [-3, 3]], "1")
    assert client.feedback("signs", answer, ["high", "low"]) == 2
    assert client.feedback("signs", answer, ["high", "low"]) == 2, "it may be sent again"
    assert client.teach("signs", np.array([[1.0, 2, 3]]), ["high"], keys=["mine"]) == 1
    assert client.learner("signs")["position"] + client.learner("signs")["behind"] >= 3


def test_a_version_for_other_classes(client: Client) -> None:
    version = client.adapt("signs", np.array([[0.0, 1, 0], [0, 2, 0], [0, 0, 1], [0, 0, 2]]), ["y", "y", "z", "z"])
    assert client.infer("signs", np.array([[0.0, 0, 5], [0, 5, 0]]), version=version).labels == ("z", "y")
    assert version in [each["version"] for each in client.versions("signs")["versions"]]


def test_an_example_under_two_classes_is_said(client: Client) -> None:
    rows = np.array([[0.0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 2]])
    version = client.adapt("signs", rows, ["y", "z", "z", "y"])
    (row,) = [each for each in client.versions("signs")["versions"] if each["version"] == version]
    assert row["note"] == "4 examples of 2 classes; 1 of them stands under more than one class, alike to the model"


def test_a_file_that_is_not_there_is_said(client: Client, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: cannot be read"):
        client.infer("colours", [str(tmp_path / "none.png")])


@pytest.mark.slow
def test_a_version_that_takes_seconds_is_waited_for_or_a_job(client: Client) -> None:
    rows, labels = np.array([[0.0, 1, 0], [0, 2, 0], [0, 0, 1], [0, 0, 2]]), ["y", "y", "z", "z"]
    job = client.adapt("signs", rows, labels, way="logistic", wait=None)
    assert (job.state, job.id[:2], job.version) == ("queued", "j-", "")
    version = client.wait(job)
    assert client.infer("signs", np.array([[0.0, 0, 5], [0, 5, 0]]), version=version).labels == ("z", "y")
    assert client.job("signs", job.id).version == version
    with pytest.raises(ServiceError, match="no way 'magic'"):
        client.adapt("signs", rows, labels, way="magic")
    with pytest.raises(ServiceError, match="has not ended after 0 s"):
        client.adapt("signs", rows, labels, way="logistic", wait=0)


def test_image_files_are_prepared_by_the_service(client: Client, tmp_path: Path) -> None:
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        Image.new("RGB", (50, 30), colour).save(tmp_path / f"{name}.png")
    found = client.infer("colours", [tmp_path / "red.png", (tmp_path / "blue.png").read_bytes()])
    assert found.labels == ("red", "blue")
    with pytest.raises(ServiceError, match="image") as refused:
        client.infer("colours", [b"no image at all"])
    assert refused.value.status == 400


def test_rows_of_a_table_are_given_by_column(client: Client) -> None:
    names = [each["name"] for each in client.metadata("table")["parameters"]["raw_inputs"]]
    columns = {
        each["name"]: ["?"] if each["datatype"] == "BYTES" else [1.5]
        for each in client.metadata("table")["parameters"]["raw_inputs"]
    }
    assert client.infer("table", columns).scores.shape[0] == 1
    with pytest.raises(ServiceError, match=f"lacks the column {names[0]}"):
        client.infer("table", {name: value for name, value in columns.items() if name != names[0]})


def test_what_is_refused_is_said(service: Served) -> None:
    with pytest.raises(ServiceError, match="not known") as refused:
        Client(service.url, "mapsto_wrong").versions("signs")
    assert refused.value.status == 401
    with pytest.raises(ServiceError, match="cannot be reached"):
        Client("http://127.0.0.1:9", "key").versions("signs")
    with pytest.raises(DomainError, match="no address"):
        Client("localhost:8080", "key")
