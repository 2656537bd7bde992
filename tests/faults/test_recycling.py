"""A receiver that deletes patients by itself: no transfer succeeds of which an instance is not there.

Orthanc recycles inside each import, with ``MaximumPatientCount`` or ``MaximumStorageSize``, the patient that was
stored to least lately and is not protected.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.protocol_matrix import VARIANTS, ProtocolMatrix, start_matrix
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


def _matrix(
    make: MakeServer, factory: pytest.TempPathFactory, limits: dict[str, Any]
) -> Iterator[ProtocolMatrix]:
    folder = factory.mktemp("recycling")
    name = "".join(f"{key[7]}{value}" for key, value in limits.items()).lower()
    a, b = make(f"a{name}"), make(f"b{name}", configuration=limits)
    with start_matrix(a, b, folder, folder / "staging", {"MaxHttpRetries": 1}) as matrix:
        yield matrix


@pytest.fixture(scope="module")
def three_patients(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtocolMatrix]:
    yield from _matrix(make_shared_server, tmp_path_factory, {"MaximumPatientCount": 3})


@pytest.fixture(scope="module")
def two_patients(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtocolMatrix]:
    yield from _matrix(make_shared_server, tmp_path_factory, {"MaximumPatientCount": 2})


@pytest.fixture(scope="module")
def five_megabytes(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtocolMatrix]:
    yield from _matrix(make_shared_server, tmp_path_factory, {"MaximumStorageSize": 5})


def patient(name: str, count: int = 4) -> list[bytes]:
    return list(small_instances(count, name=name))


def store(server: OrthancServer, *patients: list[bytes]) -> list[dict[str, str]]:
    return [resource("Patient", server.upload_all(files)[0]["ParentPatient"]) for files in patients]


@pytest.mark.parametrize("variant", VARIANTS)
def test_more_patients_than_the_limit_are_refused_and_nothing_is_deleted(
    three_patients: ProtocolMatrix, variant: str
) -> None:
    matrix = three_patients
    matrix.clear()
    matrix.b.upload_all(patient("Other^One"))
    before = matrix.b.md5s()
    ours = store(matrix.a, *(patient(f"Many^{number}") for number in range(5)))
    said = matrix.start(variant, ours).failure()
    assert "has 5 patients" in said
    # A peer of version 1 does not tell its patients: they are known when all is received.
    assert ("nothing was received" if variant.endswith("2") else "nothing was kept") in said
    assert "MaximumPatientCount is 3" in said
    assert matrix.b.md5s() == before
    matrix.nothing_is_left()


@pytest.mark.parametrize("variant", VARIANTS)
def test_as_many_patients_as_the_limit_are_received_and_others_recycled(
    three_patients: ProtocolMatrix, variant: str
) -> None:
    matrix = three_patients
    matrix.clear()
    matrix.b.upload_all(patient("Other^One"))
    ours = store(matrix.a, *(patient(f"Fit^{number}") for number in range(3)))
    matrix.start(variant, ours).succeed()
    assert matrix.b.md5s() == matrix.a.md5s()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_patient_that_was_there_already_counts(two_patients: ProtocolMatrix, variant: str) -> None:
    matrix = two_patients
    matrix.clear()
    old = patient("Old^Patient")
    matrix.b.upload_all(old)
    before = matrix.b.md5s()
    ours = store(matrix.a, old, patient("New^One"), patient("New^Two"))
    said = matrix.start(variant, ours).failure()
    assert "MaximumPatientCount is 2" in said
    assert matrix.b.md5s() == before
    matrix.nothing_is_left()


@pytest.mark.parametrize("variant", VARIANTS)
def test_more_bytes_than_the_limit_are_refused_and_nothing_is_deleted(
    five_megabytes: ProtocolMatrix, variant: str
) -> None:
    matrix = five_megabytes
    matrix.clear()
    store(matrix.b, patient("Other^One"), patient("Other^Two"))
    before = matrix.b.md5s()
    ours = store(matrix.a, list(ct_study(14)))
    said = matrix.start(variant, ours).failure()
    assert "MaximumStorageSize is 5 MB" in said
    assert "nothing was received" in said
    assert matrix.b.md5s() == before
    matrix.nothing_is_left()


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_recycling_deletes_while_it_is_imported_fails_the_transfer(
    three_patients: ProtocolMatrix, variant: str
) -> None:
    # One that is there already, and is stored to least lately: each patient that comes deletes it first.
    matrix = three_patients
    matrix.clear()
    old = patient("Old^Patient")
    store(matrix.b, old)
    store(matrix.b, patient("Other^One"), patient("Other^Two"))
    ours = store(matrix.a, old, patient("New^One"))
    transfer = matrix.start(variant, ours)
    said = transfer.failure()
    assert "4 of 8 instances" in said
    assert "MaximumPatientCount is 3" in said
    assert not set(matrix.a.instances()) & set(matrix.b.instances())
    matrix.nothing_is_left()
    transfer.again().succeed()
    assert matrix.a.md5s().items() <= matrix.b.md5s().items()


@pytest.mark.parametrize("variant", ["push-2", "pull-2"])
def test_what_recycling_deletes_for_its_bytes_while_it_is_imported_fails_the_transfer(
    five_megabytes: ProtocolMatrix, variant: str
) -> None:
    matrix = five_megabytes
    matrix.clear()
    # Slices of half a megabyte: those of the old patient go first, and all would fit.
    old = list(ct_study(2, name="Old^Patient"))
    store(matrix.b, old)
    store(matrix.b, list(ct_study(5, name="Other^One")))
    ours = store(matrix.a, old, list(ct_study(4, name="New^One")))
    transfer = matrix.start(variant, ours)
    said = transfer.failure()
    assert "2 of 6 instances" in said
    assert "MaximumStorageSize is 5 MB" in said
    assert not set(matrix.a.instances()) & set(matrix.b.instances())
    matrix.nothing_is_left()
    transfer.again().succeed()
    assert matrix.a.md5s().items() <= matrix.b.md5s().items()


@pytest.mark.parametrize("variant", VARIANTS)
def test_protected_patients_are_counted(three_patients: ProtocolMatrix, variant: str) -> None:
    matrix = three_patients
    matrix.clear()
    (kept,) = store(matrix.b, patient("Kept^Patient"))
    store(matrix.b, patient("Other^One"))
    matrix.b.request("PUT", f"patients/{kept['ID']}/protected", data="1")
    before = matrix.b.md5s()
    ours = store(matrix.a, *(patient(f"Three^{number}") for number in range(3)))
    said = matrix.start(variant, ours).failure()
    assert "MaximumPatientCount is 3" in said
    assert "protected" in said
    assert matrix.b.md5s() == before
    matrix.nothing_is_left()
