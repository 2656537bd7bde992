"""What the version before the packages left on disk in the middle of transfers, made by ``record.py``."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("data")

BUCKET_SIZE = 1
"""In KB, of all the transfers: an unfinished push of version 1 goes on with the same buckets only."""


@dataclass(frozen=True)
class Recorded:
    """One scenario: two Orthancs, ``a`` that has the job and ``b``, as the earlier version left them."""

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def facts(self) -> dict[str, Any]:
        """What the earlier version itself knew of it."""
        facts: dict[str, Any] = json.loads((DATA / f"{self.name}.json").read_text())
        return facts

    @property
    def job(self) -> str:
        """Identifier of the job."""
        return str(self.facts["Job"]["ID"])

    @property
    def saved(self) -> dict[str, Any]:
        """The job as Orthanc had saved it, which hands it to the plugin like this."""
        saved: dict[str, Any] = self.facts["Job"]["Job"]
        return saved

    @property
    def md5s(self) -> dict[str, str]:
        """Of every instance of the study that is transferred."""
        md5s: dict[str, str] = self.facts["MD5"]
        return md5s

    @property
    def receiver(self) -> str:
        """``a`` of a pull, ``b`` of a push."""
        return "a" if self.saved["Type"] == "PullTransfer" else "b"

    @property
    def staged(self) -> dict[str, Any]:
        """What the earlier version read from the one area that the receiver has."""
        (staged,) = self.facts[f"Staged {self.receiver}"]
        return dict(staged)

    def unpack(self, server: str, folder: Path) -> Path:
        """Makes ``folder`` what the storage folder of ``a`` or ``b`` was."""
        # Everything is of now: reports and records are kept for some days, told by the times of their files.
        with tarfile.open(DATA / f"{self.name}.tar.xz") as archive:
            for member in archive:
                first, _, rest = member.name.partition("/")
                content = archive.extractfile(member)
                if first == server and content is not None:
                    path = folder / rest
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())
        return folder


PUSHES = [Recorded(name) for name in ("push-v2", "push-v1", "push-v1-killed")]
PULLS = [Recorded(name) for name in ("pull-v2", "pull-v1")]
COMMITTING = Recorded("committing")
ENDED = Recorded("ended")
ALL = [*PUSHES, *PULLS, COMMITTING, ENDED]
