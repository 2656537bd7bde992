"""Jobs saved by the version before the packages are restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orthanc_transfers.jobs.job import TransferJob
from orthanc_transfers.jobs.restore import reload
from tests.compatibility.recorded import ALL, ENDED, Recorded
from tests.jobs.memory_link import InProcessPeers, Link
from tests.jobs.memory_server import Server
from tests.jobs.two_peers import services_of


@contextmanager
def restored(recorded: Recorded, folder: Path) -> Iterator[TransferJob]:
    """The job, on the server that had it."""
    recorded.unpack("a", folder / "a")
    server = Server(folder / "a", "Transfers")
    # Neither of them is the job's own: Orthanc adds the one, and the engine takes off the other.
    saved = {key: value for key, value in recorded.saved.items() if key not in ("Type", "JobID")}
    try:
        yield reload(services_of(server, InProcessPeers([], Link())), recorded.saved["Type"], saved)
    finally:
        server.close()


@pytest.mark.parametrize("recorded", ALL, ids=str)
def test_a_job_is_restored_with_its_order_its_token_and_where_it_stood(
    recorded: Recorded, tmp_path: Path
) -> None:
    with restored(recorded, tmp_path) as job:
        assert job.type == recorded.saved["Type"]
        assert job.token == recorded.saved["Token"]
        # Saved again, it is what it was.
        expected = {**job.serialized(), "Type": job.type}
        if "JobID" in recorded.saved:
            expected["JobID"] = recorded.job
        if recorded.name != "push-v1-killed":
            assert expected.items() >= recorded.saved.items()


@pytest.mark.parametrize("name", ["push-v1", "push-v1-killed"])
def test_a_push_of_version_1_knows_the_buckets_that_were_acknowledged(name: str, tmp_path: Path) -> None:
    recorded = Recorded(name)
    # The sender that was killed had saved no more than its order and its token: its acknowledgement log has the rest.
    assert ("Completed" in recorded.saved) is (name == "push-v1")
    with restored(recorded, tmp_path) as job:
        saved = job.serialized()
        assert saved["Completed"] == [[0, 4]]
        assert saved["Transaction"] == f"/transfers/push/{recorded.staged['ID']}"
        assert saved["Plan"].startswith("none:1024:")


def test_a_job_that_had_ended_shows_what_it_showed(tmp_path: Path) -> None:
    with restored(ENDED, tmp_path) as job:
        assert job.content() == ENDED.facts["Shown"]["Content"]
        assert job.progress() == 1.0
