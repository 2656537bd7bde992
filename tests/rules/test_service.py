"""The rules of an Orthanc as a whole."""

from __future__ import annotations

import threading
from pathlib import Path
from unittest.mock import Mock

from orthanc_transfers.core.settings import Settings
from orthanc_transfers.rules.service import RuleService


def test_without_a_rule_nothing_is_begun_asked_or_listened_to(tmp_path: Path) -> None:
    services, orthanc, listen = Mock(), Mock(), Mock()
    services.settings = Settings()
    file = tmp_path / "rules" / "rules.sqlite"
    service = RuleService(services, Mock(), Mock(), orthanc, Mock(), lambda: file, listen, 60)
    asked, threads = len(orthanc.mock_calls), threading.active_count()
    service.start()
    service.ended(Mock())
    assert (service.listing(), service.metrics(), service.held_peers()) == ([], {}, [])
    service.close()
    assert threading.active_count() == threads
    assert len(orthanc.mock_calls) == asked == 0
    listen.assert_not_called()
    assert not file.parent.exists()
