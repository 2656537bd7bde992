"""What Orthanc tells the plugin of its changes, of which each import makes several."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import dicom_data
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import ENTRY

pytestmark = pytest.mark.orthanc

SCRIPT = f"""
import ctypes
import importlib.util
import orthanc

made = []
ensure = ctypes.pythonapi.PyGILState_Ensure

def counting():
    made.append(1)
    return ensure()

ctypes.pythonapi.PyGILState_Ensure = counting

def tell(output, uri, **request):
    output.AnswerBuffer(str(len(made)), "application/json")

orthanc.RegisterRestCallback("/made", tell)
spec = importlib.util.spec_from_file_location("entry", {str(ENTRY)!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""


def test_a_thread_of_orthanc_that_tells_of_changes_gets_one_state_of_python_for_all_of_them(
    make_server: MakeServer, tmp_path: Path
) -> None:
    script = tmp_path / "counting.py"
    script.write_text(SCRIPT)
    server = make_server("changes", script=script).start()
    at_start = server.get("made")
    assert at_start >= 1
    server.upload_all(dicom_data.small_instances(20))
    assert server.get("made") <= at_start + 1
    server.stop()
    assert "failed" not in server.log
