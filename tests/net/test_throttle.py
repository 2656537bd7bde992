"""Limits on bandwidth that users change while transfers run."""

from __future__ import annotations

from orthanc_transfers.core.bandwidth_limits import BandwidthLimits
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.net.throttle import Throttle
from tests.runtime.fake_time import FakeClock


def test_a_change_counts_from_the_next_byte_on() -> None:
    throttle = Throttle(BandwidthLimits.configured(Settings()), FakeClock())
    of_all, of_peer = throttle.of("b")
    assert not of_all.limited
    assert not of_peer.limited
    throttle.change({"Peers": {"b": 500}})
    assert of_peer.limited
    assert throttle.limited("b")
    assert not throttle.limited("c")
    throttle.change({"LimitKBs": 100})
    assert of_all.limited
    throttle.change(None)
    assert not of_all.limited
    assert not of_peer.limited
