"""The companion: by it, Orthanc's own list of plugins has ``transfers``, which Orthanc Explorer 2 looks for."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from orthanc_transfers import companion
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import CHECKOUT, start_together

pytestmark = pytest.mark.orthanc

# Beside the plugin: what Orthanc itself lists, not what our route makes of it; and the contexts found.
SCRIPT = """
import json
import orthanc
exec(open({entry!r}).read(), {{"__file__": {entry!r}}})
from orthanc_transfers.host.native import context

def look(output, uri, **request):
    segments = context._writable_segments()
    output.AnswerBuffer(json.dumps({{
        "plugins": json.loads(orthanc.RestApiGet("/plugins")),
        "companion": context._context_of_companion(),
        "version": context.version_of(context.find_context()),
        "searched": sorted(context.contexts(segments, context.Memory.of_this_process())),
        "other": context.other_transfers_plugin_loaded(),
    }}), "application/json")

orthanc.RegisterRestCallback("/look", look)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The companion, built anew from its source."""
    folder = tmp_path_factory.mktemp("companion")
    code = f"import pathlib, build_companion; build_companion.build(pathlib.Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT / "scripts", check=True)
    return folder / companion.file_name(platform.machine())


@pytest.mark.parametrize("with_companion", [True, False])
def test_orthancs_own_list_has_transfers_with_the_companion_only(
    make_server: MakeServer, library: Path, tmp_path: Path, with_companion: bool
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(entry=str(CHECKOUT / "orthanc_transfers" / "entry.py")))
    plugins = [library] if with_companion else []
    a = make_server("a", script=script, plugins=plugins)
    b = make_server("b", plugins=plugins)
    a.add_peer("b", b)
    start_together(a, b)
    seen = a.get("/look")
    assert ("transfers" in seen["plugins"]) == with_companion
    assert len(seen["searched"]) == 1
    assert (seen["companion"] is not None) == with_companion
    assert seen["version"] == a.get("/system")["Version"]
    assert seen["other"] is False
    assert a.get("/plugins").count("transfers") == 1
    study = a.upload_all(ct_study(3))[0]["ParentStudy"]
    job = a.send([resource("Study", study)], "b")["ID"]
    assert a.wait_for_job(job)["State"] == "Success"
    assert a.md5s() == b.md5s()
    assert "Error" not in a.log


def test_it_needs_no_other_library_and_is_small(library: Path) -> None:
    for architecture in companion.ARCHITECTURES:
        built = library.parent / companion.file_name(architecture)
        assert built.stat().st_size < 8192
        assert b".so." not in built.read_bytes()
