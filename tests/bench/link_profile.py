"""A link profile: round-trip time, rate and loss, or loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.wan_link import WanLink, wan_link

_NAME = "bench"


@dataclass(frozen=True)
class LinkProfile:
    """``rtt`` in ms, ``rate`` in Mbit/s, ``loss`` in %; all 0 is loopback."""

    rtt: float = 0
    rate: float = 0
    loss: float = 0

    @classmethod
    def parse(cls, text: str) -> LinkProfile:
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

    @contextlib.contextmanager
    def link(self) -> Iterator[WanLink | None]:
        """The link, up while it is needed; ``None`` on loopback. What it counted is printed at the end."""
        if self.local:
            yield None
            return
        with wan_link(_NAME, rtt=self.rtt, rate=self.rate, loss=self.loss) as made:
            yield made
            print(made.stats())
