"""A file that is damaged or gone at the sender: the job ends soon, and names the instance and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.protocol_matrix import PUSH_VARIANTS, VARIANTS, ProtocolMatrix, start_matrix
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.recording_proxy import RecordingProxy

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

Matrix = ProtocolMatrix[RecordingProxy]


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    folder = tmp_path_factory.mktemp("lost")
    # Orthanc's own cache would have the files that were just stored.
    a = make_shared_server("a", configuration={"MaximumStorageCacheSize": 0})
    b = make_shared_server("b")
    # Without cache: what was read once must not hide what is there now.
    with start_matrix(a, b, folder, folder / "staging", {"BucketSize": 64}) as matrix:
        yield matrix


@pytest.fixture
def matrix(shared: Matrix) -> Matrix:
    shared.clear()
    return shared


def study(matrix: Matrix) -> tuple[list[dict[str, str]], str]:
    """A study, and one of its instances, which nothing has read so far."""
    uploaded = matrix.a.upload_all(ct_study(6, size=128))
    return [resource("Study", uploaded[0]["ParentStudy"])], sorted(item["ID"] for item in uploaded)[2]


def file_of(server: OrthancServer, instance: str) -> Path:
    """Where Orthanc keeps an instance, which only its own database tells: found by its content."""
    wanted = server.get(f"instances/{instance}/attachments/dicom/md5")
    # Two levels of folders, as Orthanc makes them.
    return next(
        path
        for path in server.storage.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*")
        if hashlib.md5(path.read_bytes()).hexdigest() == wanted
    )


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 0xFF
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_damaged_file_is_named_as_such(matrix: Matrix, variant: str) -> None:
    resources, instance = study(matrix)
    damage(file_of(matrix.a, instance))
    failure = matrix.start(variant, resources).failure()
    if variant in PUSH_VARIANTS:
        assert failure.startswith(f"the file of instance {instance} is damaged on this Orthanc: its MD5 is ")
        assert len(matrix.proxies[variant].of("POST", "/commit")) == 1
    else:
        assert f"sent of instance {instance} does not have the MD5 that it announced" in failure
        assert "the file is damaged there, or was overwritten meanwhile" in failure
    assert matrix.b.instances() == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("harm", [Path.unlink, truncate], ids=["gone", "truncated"])
def test_a_file_that_cannot_be_read_is_named_and_not_tried_again(
    matrix: Matrix, variant: str, harm: object
) -> None:
    resources, instance = study(matrix)
    assert callable(harm)
    harm(file_of(matrix.a, instance))
    failure = matrix.start(variant, resources).failure()
    assert f"the file of instance {instance} " in failure
    words = ["cannot be read from this Orthanc's storage: it is missing or damaged (Orthanc reports '"]
    if harm is truncate:
        # 1.10.1 reads what is left.
        words.append("this Orthanc, whose index says")
    assert any(text in failure for text in words)
    if variant not in PUSH_VARIANTS:
        assert "with 404: " in failure
        refused = [
            one.uri for one in matrix.proxies[variant].requests if one.status == 404 and "chunks" in one.uri
        ]
        # One by each connection at most.
        assert len(refused) <= 8
    assert matrix.b.instances() == []
