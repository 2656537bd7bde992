"""Where it is measured: two Orthancs on loopback, or with a link of chosen delay, rate and loss between them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.orthanc_server import OrthancServer, pair, running
from tests.support.wan import HOSTS, Lab, lab

STAND_IN = Path(__file__).with_name("zlib_level_6.py")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass(frozen=True)
class Place:
    """``rtt`` in ms, ``rate`` in Mbit/s, ``loss`` in %; all 0 is loopback."""

    rtt: float = 0
    rate: float = 0
    loss: float = 0

    @classmethod
    def parse(cls, text: str) -> Place:
        """``loopback``, or ``RTT:RATE[:LOSS]``. Raises ``ValueError``."""
        return cls() if text == "loopback" else cls(*map(float, text.split(":")))

    @property
    def local(self) -> bool:
        return not self.rate

    def __str__(self) -> str:
        if self.local:
            return "loopback"
        loss = f", {self.loss:g} % loss" if self.loss else ""
        return f"{self.rtt:g} ms, {self.rate:g} Mbit/s{loss}"


def link(place: Place, name: str) -> contextlib.AbstractContextManager[Lab]:
    """The link of a place that is not loopback, up while it is needed."""
    return lab(name, rtt=place.rtt, rate=place.rate, loss=place.loss)


@contextlib.contextmanager
def servers(folder: Path, at: Lab | None, *, stand_in: bool) -> Iterator[tuple[OrthancServer, OrthancServer]]:
    """Sender and receiver. On a link, this process has to be at its end ``a``."""
    made = []
    for name in ("a", "b"):
        server = OrthancServer(
            name,
            folder / name,
            configuration={
                "DicomServerEnabled": True,
                "DicomAet": name.upper(),
                "DicomAlwaysAllowStore": True,
                "DicomCheckCalledAet": False,
                "RemoteAccessAllowed": at is not None,
                "JobsHistorySize": 1000,
                "StableAge": 3600,
                "DicomWeb": {"Servers": {}},
            },
            plugins=[DICOMWEB] if DICOMWEB.exists() else [],
            host="127.0.0.1" if at is None else HOSTS[name],
            launcher=at.inside(name) if at is not None else (),
            **({"script": STAND_IN} if stand_in else {}),
        )
        made.append(server)
    a, b = made
    pair(a, b)
    a.configuration["DicomModalities"] = {"b": ["B", b.host, b.dicom_port]}
    a.configuration["DicomWeb"]["Servers"] = {"b": [f"{b.url}dicom-web/"]}
    with running(a, b):
        yield a, b


def settle() -> None:
    """Let the disk come to rest, so that one transfer does not pay for the one before."""
    os.sync()
