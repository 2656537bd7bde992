"""What a study of a test has beside DICOM, at both sides of its transfer."""

from __future__ import annotations

from tests.faults.rig import Transfer
from tests.support.orthanc_server import OrthancServer

TAKEN = ["Labels", "Metadata", "Attachments"]
"""``AcceptMetadata`` of the receiver."""
OLD, NEW, FILE = b"of before", b"of the sender", bytes(range(256)) * 1000


class Beside:
    """What the study has beside DICOM at the source; and at the target, where two values are others."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        transfer.options.update(WithAttachments=True, Overwrite=True)
        study, instance = f"studies/{transfer.study}", f"instances/{max(transfer.wanted)}"
        self._paths = (
            f"{study}/metadata/1050",
            f"{study}/metadata/1051",
            f"{instance}/metadata/1050",
            f"{study}/attachments/1060/data",
        )
        for path, data in zip(self._paths, (NEW, NEW, NEW, FILE), strict=True):
            _put(transfer.source, path, data)
        for path in (self._paths[0], self._paths[3]):
            _put(transfer.target, path, OLD)

    def at_target(self) -> list[bytes | None]:
        answers = [self._transfer.target.request("GET", path) for path in self._paths]
        return [answer.content if answer.status_code == 200 else None for answer in answers]

    def is_there(self) -> None:
        assert self.at_target() == [NEW, NEW, NEW, FILE]

    def is_as_before(self) -> None:
        assert self.at_target() == [OLD, None, None, OLD]


def _put(server: OrthancServer, path: str, data: bytes) -> None:
    assert server.request("PUT", path.removesuffix("/data"), data=data).status_code == 200
