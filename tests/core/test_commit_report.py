"""The format of commit reports."""

from __future__ import annotations

import json

from orthanc_transfers.core.commit_report import CommitReport, InstanceOutcome
from orthanc_transfers.core.model import Instance


def test_a_report_is_written_as_it_always_was() -> None:
    one, two = Instance("a" * 40, 10, "b" * 32), Instance("c" * 40, 5, "d" * 32)
    report = CommitReport(
        id="1",
        kind="push",
        direction="receive",
        peer=None,
        created=1000.0,
        ending={"State": "failed", "Finished": 1002.5, "Error": "no"},
        instances=[InstanceOutcome(one, "stored"), InstanceOutcome(two, "refused", "bad file")],
    )
    assert json.dumps(report.to_json()) == (
        '{"ID": "1", "Kind": "push", "Direction": "receive", "Peer": null, "Created": 1000.0,'
        ' "State": "failed", "Finished": 1002.5, "Error": "no", "TotalInstances": 2, "TotalSize": "15",'
        f' "Instances": [{{"ID": "{one.id}", "MD5": "{one.md5}", "Size": 10, "Outcome": "stored"}},'
        f' {{"ID": "{two.id}", "MD5": "{two.md5}", "Size": 5, "Outcome": "refused", "Reason": "bad file"}}]}}'
    )
