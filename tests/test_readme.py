"""The README's requests work when pasted, and its table of options is complete."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import textwrap
from unittest.mock import Mock

import pytest

from orthanc_transfers.core.cluster_settings import ClusterSettings
from orthanc_transfers.core.settings import Settings, parse_settings
from orthanc_transfers.rest.routes import routes
from tests.support.dicom_data import small_instances
from tests.support.orthanc_server import CHECKOUT, OrthancServer

README = (CHECKOUT / "README.md").read_text()

# Each request waits for the transfers before it, as a user who pastes them one by one does, and must succeed.
CURL = """
set -e
curl() {
    while command curl -s "$A/jobs?expand" | grep -qE '"(Pending|Running)"'; do sleep 0.05; done
    command curl --fail-with-body --no-progress-meter "$@"
}
"""


def section(title: str) -> str:
    """The text below a heading."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.mark.orthanc
def test_the_requests_of_the_readme_work_when_pasted(
    two_servers: tuple[OrthancServer, OrthancServer],
) -> None:
    a, b = two_servers
    a.put("peers/B", {"Url": b.url})
    a.upload_all(small_instances(2))
    before = a.md5s()
    (block,) = re.findall(r"^\*\*REST\*\*.*?\n\n(.*?)\n\n\|", section("Use it"), re.MULTILINE | re.DOTALL)
    pasted = textwrap.dedent(block).replace("http://localhost:8042", a.url.rstrip("/"))
    done = subprocess.run(
        ["bash", "-c", CURL + pasted], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert b.md5s() == before
    decoder, answers, rest = json.JSONDecoder(), [], done.stdout.lstrip()
    while rest:
        answer, length = decoder.raw_decode(rest)
        answers.append(answer)
        rest = rest[length:].lstrip()
    sent, job, paused, report, peers = answers
    assert sent["Path"] == f"/jobs/{sent['ID']}"
    assert (job["Type"], job["State"]) == ("PullTransfer", "Success")
    assert paused == {}
    assert {one["ID"] for one in report["Instances"]} == set(before)
    assert peers == {"B": "installed", "b": "installed"}


def test_the_table_of_options_is_complete_and_has_the_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section("Configuration"), re.MULTILINE))
    defaults = {
        name: json.loads(text.strip("`"))
        for name, text in rows.items()
        if re.fullmatch(r"`(?:false|true|\[\])`|[0-9]+", text)
    }
    assert set(rows) - set(defaults) == {"StagingDirectory", "CongestionControl", "Cluster"}
    assert rows["CongestionControl"] == "`auto`"
    # An option with the default of the table is as good as none; and an empty section names all that there are.
    assert parse_settings({**defaults, "CongestionControl": "auto", "StagingDirectory": ""}) == Settings()
    assert len(rows) == len(Settings.__dataclass_fields__)
    cluster = dict(re.findall(r"^\| `Cluster\.(\w+)` \| (.*?) \|", section("Configuration"), re.MULTILINE))
    assert len(cluster) == len(ClusterSettings.__dataclass_fields__)
    defaults = {name: cluster[name] for name in ("Enabled", "SharedStaging", "AdoptAfter")}
    assert list(defaults.values()) == ["`true`", "`true`", str(ClusterSettings().adopt_after)]
    assert parse_settings({"Cluster": dict.fromkeys(set(cluster) - set(defaults), "")})


OF_PEERS = (
    "/transfers/lookup",
    "/transfers/chunks",
    "/transfers/push",
    "/transfers/v2/",
    "/transfers/capabilities",
)
"""Routes that peers call, with a user of their own."""


def test_the_permissions_are_about_every_route_that_a_user_calls() -> None:
    (block,) = re.findall(r'^\{\n  "Authorization".*?^\}', README, re.MULTILINE | re.DOTALL)
    written = json.loads(block)["Authorization"]
    asked = set()
    for route in routes(*(Mock() for _ in inspect.signature(routes).parameters)):
        # What a path may have or not, it has.
        path = re.sub(r"\((?!\?)[^()]*\)", "0", re.sub(r"\(\?:([^()]*)\)\?", r"\1", route.pattern))
        if path.startswith("/transfers/") and not path.startswith(OF_PEERS):
            asked |= {(method.lower(), path) for method in route.methods}
    assert len(asked) > 10
    assert [
        (method, path)
        for method, path in sorted(asked)
        if not path.startswith(tuple(written["UncheckedFolders"]))
        and not any(method == verb and re.search(what, path) for verb, what, _ in written["ExtraPermissions"])
    ] == []
