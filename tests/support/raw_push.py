"""A push made request by request, in either version of the protocol."""

from __future__ import annotations

import gzip
import hashlib
import io
import secrets
from collections.abc import Sequence
from typing import Any

import pydicom
import requests

from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until


def orthanc_id(data: bytes) -> str:
    """The identifier that Orthanc gives to the instance in a file."""
    dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    keywords = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    digest = hashlib.sha1("|".join(str(dataset.get(one, "")) for one in keywords).encode()).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


class RawPush:
    """Files, in the order of the manifest: one bucket for each of them, whichever the version.

    Every method returns the response, whatever its status.
    """

    def __init__(self, server: OrthancServer, version: int, files: Sequence[bytes]) -> None:
        self.server = server
        self.version = version
        stored = {orthanc_id(data): data for data in files}
        self.files = [stored[one] for one in sorted(stored)]
        self.instances = [
            {"ID": one, "Size": str(len(stored[one])), "MD5": hashlib.md5(stored[one]).hexdigest()}
            for one in sorted(stored)
        ]
        self.path = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files))

    def creation(self) -> dict[str, Any]:
        """The body of ``create``; with a token that was never used."""
        if self.version == 2:
            return {"Token": secrets.token_hex(16), "Instances": self.instances}
        buckets = [[{"ID": one["ID"], "Offset": "0", "Size": one["Size"]}] for one in self.instances]
        return {"Compression": "gzip", "Instances": self.instances, "Buckets": buckets}

    def create(self) -> requests.Response:
        root = "transfers/push" if self.version == 1 else "transfers/v2/push"
        answer = self.server.request("POST", root, json=self.creation())
        if answer.status_code == 200:
            self.path = answer.json()["Path"]
        return answer

    def put(self, index: int) -> requests.Response:
        data = self.files[index]
        if self.version == 1:
            return self.server.request("PUT", f"{self.path}/{index}", data=gzip.compress(data, 1))
        offset = sum(map(len, self.files[:index]))
        return self.server.request("PUT", f"{self.path}/{offset}/{len(data)}", data=data)

    def put_all(self) -> None:
        """Each must be taken."""
        for index in range(len(self.files)):
            answer = self.put(index)
            assert answer.status_code == 200, answer.text

    def carry(self) -> None:
        """All of it, from the first bucket to the commit, which must succeed. Of version 2."""
        self.put_all()
        self.commit()
        known = wait_until(
            lambda: next((one for one in [self.status()] if one["State"] != "committing"), None), "its end"
        )
        assert known["State"] == "committed", known

    def commit(self) -> requests.Response:
        return self.server.request("POST", f"{self.path}/commit")

    def status(self) -> Any:
        """Of version 2."""
        return self.server.get(f"{self.path}?wait=5")

    def drop(self) -> requests.Response:
        return self.server.request("DELETE", self.path)
