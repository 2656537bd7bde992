"""The wall clock jumps, on both sides, during a transfer."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pytest

from tests.faults.protocol_matrix import VARIANTS, ProtocolMatrix, start_matrix
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.slowly import slowly
from tests.support.waiting import wait_until
from tests.support.wrong_clock import WrongClock

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

AHEAD = 400
"""Days."""
SLICES = 16
"""Of half a MB each."""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> WrongClock:
    try:
        return WrongClock(tmp_path_factory.mktemp("clock"))
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def shared(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory, clock: WrongClock
) -> Iterator[ProtocolMatrix]:
    folder = tmp_path_factory.mktemp("jumps")
    a, b = (
        make_shared_server(name, environment=clock.environment, configuration={"ConcurrentJobs": 4})
        for name in "ab"
    )
    transfers = {
        "BucketSize": 128,
        "Threads": 1,
        "PushIdleTimeout": 30,
        "MaxOutage": 30,
    }
    with start_matrix(a, b, folder, folder / "staging", transfers) as matrix:
        yield matrix


@pytest.fixture
def matrix(shared: ProtocolMatrix, clock: WrongClock) -> ProtocolMatrix:
    """The same two Orthancs for all tests of this file, empty and with a right clock at the start of each."""
    clock.days(0)
    shared.clear()
    return shared


def days_ahead(matrix: ProtocolMatrix) -> list[int]:
    """As the two servers see the time."""
    today = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    times = [server.get("tools/now") for server in (matrix.a, matrix.b)]
    return [round((datetime.datetime.strptime(one, "%Y%m%dT%H%M%S") - today).days / 10) * 10 for one in times]


def test_transfers_go_on_whatever_the_clock_does(matrix: ProtocolMatrix, clock: WrongClock) -> None:
    studies = [matrix.a.upload_all(ct_study(SLICES))[0]["ParentStudy"] for _ in VARIANTS]

    def carried() -> list[int]:
        return [transfer.content().get("CompletedHttpQueries", 0) for transfer in transfers]

    with slowly(matrix.a, matrix.b, kbs=1000):
        transfers = [
            matrix.start(variant, [resource("Study", study)], Compression="none")
            for variant, study in zip(VARIANTS, studies, strict=True)
        ]
        for days in (AHEAD, -AHEAD, 0):
            before = carried()
            clock.days(days)
            wait_until(lambda: days_ahead(matrix) == [days, days], "the jump")  # noqa: B023
            wait_until(lambda: all(now > then for now, then in zip(carried(), before, strict=True)), "more")  # noqa: B023
    for transfer in transfers:
        assert transfer.succeed()["ResumedSizeMB"] == 0
    assert matrix.b.md5s() == matrix.a.md5s()


@pytest.mark.parametrize("variant", ["push-2", "pull-2"])
def test_a_report_is_kept_although_the_clock_went_back_after_it(
    matrix: ProtocolMatrix, clock: WrongClock, variant: str
) -> None:
    resources = [resource("Study", matrix.a.upload_all(ct_study(1))[0]["ParentStudy"])]
    clock.days(AHEAD)
    wait_until(lambda: days_ahead(matrix) == [AHEAD, AHEAD], "the jump")
    transfer = matrix.start(variant, resources)
    transfer.succeed()
    clock.days(0)
    report = transfer.server.get(f"transfers/reports/{transfer.job}")
    now = datetime.datetime.now(datetime.UTC).timestamp()
    assert report["Finished"] == pytest.approx(now + AHEAD * 86400, abs=86400)
