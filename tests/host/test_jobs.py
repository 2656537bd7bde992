"""Our jobs in Orthanc's own engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

MakeHost = Callable[..., OrthancServer]


def submit(host: OrthancServer, **wanted: Any) -> str:
    job: str = host.post("host/jobs", wanted)
    return job


def calls(host: OrthancServer) -> list[str]:
    made: list[str] = host.get("host/said")["calls"]
    return made


def test_a_job_runs_to_its_end_and_shows_its_content(host: OrthancServer) -> None:
    job = host.wait_for_job(submit(host))
    assert (job["State"], job["Type"], job["Priority"], job["Progress"]) == (
        "Success",
        "PushTransfer",
        5,
        100,
    )
    assert job["Content"] == {"Done": 3, "Name": "Müller ☃"}


def test_a_failed_job_says_why_in_its_content_and_in_the_log(host: OrthancServer) -> None:
    job = host.wait_for_job(submit(host, Fails=True))
    assert job["State"] == "Failure"
    assert job["Content"]["Error"] == "the sentence of a failed job"
    assert "PushTransfer failed: the sentence of a failed job" in host.log


def test_a_step_that_raises_fails_the_job_and_leaves_a_traceback(host: OrthancServer) -> None:
    assert host.wait_for_job(submit(host, Raises=True))["State"] == "Failure"
    assert "ValueError: a step that raises" in host.log


def test_a_failed_job_that_is_resubmitted_starts_over(host: OrthancServer) -> None:
    job = submit(host, Fails=True)
    host.wait_for_job(job)
    host.post(f"jobs/{job}/resubmit")
    finished = host.wait_for_job(job, states=["Success"])
    assert "reset" in calls(host)
    assert "Error" not in finished["Content"]


def test_a_paused_job_stays_where_it_is_and_goes_on(host: OrthancServer) -> None:
    job = submit(host, Steps=100_000)
    host.wait_for_job(job, states=["Running"])
    host.post(f"jobs/{job}/pause")
    done = host.wait_for_job(job, states=["Paused"])["Content"]["Done"]
    assert "stop PAUSED" in calls(host)
    host.post(f"jobs/{job}/resume")
    wait_until(lambda: host.job(job)["Content"]["Done"] > done, "the job goes on")
    host.post(f"jobs/{job}/cancel")
    assert host.wait_for_job(job)["ErrorCode"] != 0
    assert "stop CANCELED" in calls(host)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_job_canceled_while_it_is_paused_hears_of_it(make_host: MakeHost, restarted: bool) -> None:
    host = make_host("resting").start()
    job = submit(host, Steps=100_000)
    host.wait_for_job(job, states=["Running"])
    host.post(f"jobs/{job}/pause")
    host.wait_for_job(job, states=["Paused"])
    ended = host.wait_for_job(submit(host, Fails=True))["ID"]
    if restarted:
        host.restart()
        assert host.job(job)["State"] == "Paused"
        looks = host.get("host/said")["looks"]
        wait_until(lambda: host.get("host/said")["looks"] > looks + 1, "the paused job is looked at")
    assert "stop CANCELED" not in calls(host)
    host.post(f"jobs/{job}/cancel")
    wait_until(lambda: "stop CANCELED" in calls(host), "the job hears of it")
    assert calls(host).count("stop CANCELED") == 1
    assert host.job(ended)["State"] == "Failure"


def test_many_readers_of_a_running_job_always_see_whole_texts(host: OrthancServer) -> None:
    job = submit(host, Steps=100_000)
    host.wait_for_job(job, states=["Running"])
    with ThreadPoolExecutor(16) as readers:
        seen = list(readers.map(lambda _: host.job(job)["Content"]["Name"], range(200)))
    assert set(seen) == {"Müller ☃"}
    host.post(f"jobs/{job}/cancel")
    host.wait_for_job(job)


def test_a_job_that_orthanc_forgets_is_released(make_host: MakeHost) -> None:
    host = make_host("forgetful", JobsHistorySize=1).start()
    host.wait_for_job(submit(host))
    assert "release" not in calls(host)
    host.wait_for_job(submit(host))
    wait_until(lambda: "release" in calls(host), "the first job is released")


def test_a_running_job_goes_on_after_a_restart_from_where_it_was(make_host: MakeHost) -> None:
    host = make_host("restarted").start()
    job = submit(host, Steps=100_000)
    wait_until(lambda: host.job(job)["Content"].get("Done", 0) > 5, "some steps are done")
    done = host.job(job)["Content"]["Done"]
    host.restart()
    assert "reloaded PushTransfer without Type: True" in host.log
    assert "released after" in host.log
    wait_until(lambda: host.job(job)["State"] == "Running", "the job runs again")
    assert host.job(job)["Content"]["Done"] >= done


def test_at_the_end_of_orthanc_each_job_is_released_once(make_host: MakeHost) -> None:
    host = make_host("stopped").start()
    submit(host, Steps=100_000)
    waiting = [submit(host, Steps=100_000) for _ in range(3)]
    host.wait_for_job(waiting[0], states=["Running"])
    host.stop()
    assert host.log.count("released after") == 4


def test_saved_jobs_of_others_are_left_to_them(make_host: MakeHost) -> None:
    host = make_host("others", DicomModalities={"m": ["M", "127.0.0.1", 1]}).start()
    job = host.post("modalities/m/store", {"Resources": [], "Asynchronous": True, "Permissive": True})["ID"]
    host.wait_for_job(job)
    host.restart()
    assert host.job(job)["Type"] == "DicomModalityStore"
    assert "reloaded" not in host.log
