"""Every way to load the plugin that the README names, in a real Orthanc."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import orthanc_transfers
from tests.support import dicom_data
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import OrthancError, StatusError, resource
from tests.support.orthanc_server import CHECKOUT, ENTRY, OrthancServer, pair, start_together
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of a virtual environment in which pip installed this package, and nothing else."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "-q", CHECKOUT], check=True)
    (packages,) = venv.glob("lib/python3.*/site-packages")
    assert not packages.joinpath("pytest").exists()
    return packages


def assert_loaded(server: OrthancServer) -> None:
    assert "transfers" in server.get("plugins")
    assert server.get("plugins/transfers")["Version"] == orthanc_transfers.__version__
    assert server.get("transfers/peers") == {}


def script(folder: Path, text: str) -> Path:
    file = folder / "my_script.py"
    file.write_text(text)
    return file


def test_from_a_checkout_that_make_setup_made_ready(make_server: MakeServer) -> None:
    server = make_server("checkout", script=ENTRY)
    # Nothing of this test's own environment helps: Orthanc is started by systemd as a rule.
    server.environment.update(PYTHONPATH="", VIRTUAL_ENV="", PATH=os.defpath)
    assert_loaded(server.start())


def test_from_a_virtual_environment_in_which_pip_installed_it(
    make_server: MakeServer, installed: Path
) -> None:
    assert_loaded(make_server("installed", script=installed / "orthanc_transfers" / "entry.py").start())


def test_from_a_script_of_the_user_that_goes_on_to_work(
    make_server: MakeServer, installed: Path, tmp_path: Path
) -> None:
    users = script(
        tmp_path,
        f"""
import site
import orthanc

site.addsitedir({str(installed)!r})
import orthanc_transfers

def hello(output, uri, **request):
    output.AnswerBuffer("hello", "text/plain")

changes = []

def on_change(change, level, resource):
    changes.append(change)

def seen(output, uri, **request):
    output.AnswerBuffer(str(changes), "application/json")

orthanc.RegisterRestCallback("/hello", hello)
orthanc.RegisterRestCallback("/seen", seen)
orthanc.RegisterOnChangeCallback(on_change)
orthanc_transfers.register()
""",
    )
    server = make_server("script", script=users).start()
    assert_loaded(server)
    assert server.get("hello") == "hello"
    # Orthanc allows one such callback per script: the user's own still hears that Orthanc started.
    # Its HTTP server responds a moment before.
    wait_until(lambda: 10 in server.get("seen"), "the script hears of the start")


def test_a_bad_value_of_the_configuration_is_named_in_the_log_and_orthanc_starts_without_the_plugin(
    make_server: MakeServer,
) -> None:
    server = make_server("bad", configuration={"Transfers": {"Threads": "many"}}).start()
    with pytest.raises(StatusError, match="404"):
        server.get("transfers/peers")
    assert "Threads" in server.log
    assert "Traceback" not in server.log


NOT_LOADED = "the transfers plugin is not loaded"

MakeHome = Callable[[], Path]


@pytest.fixture
def make_home() -> Iterator[MakeHome]:
    """Makes copies of this checkout's package, each with the ``.venv`` of this one, that any user may read.

    What is put into such a folder is found before all other modules of the same name.
    """
    made: list[Path] = []

    def make() -> Path:
        home = Path(tempfile.mkdtemp(prefix="checkout-"))
        made.append(home)
        home.chmod(0o755)
        shutil.copytree(
            CHECKOUT / "orthanc_transfers",
            home / "orthanc_transfers",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (home / ".venv").symlink_to(CHECKOUT / ".venv")
        return home

    yield make
    for home in made:
        shutil.rmtree(home)


def entry_of(home: Path) -> Path:
    return home / "orthanc_transfers" / "entry.py"


def reason_in(server: OrthancServer) -> str:
    """The one line that says why the plugin is not loaded, of an Orthanc that serves all the same."""
    assert server.get("system")["Name"] == server.name
    with pytest.raises(StatusError, match="404"):
        server.get("transfers/capabilities")
    assert "Traceback" not in server.log
    (line,) = (line for line in server.log.splitlines() if NOT_LOADED in line)
    assert line.startswith("E"), "an error of Orthanc's log"
    return line


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("zstandard.py", b"import a_module_that_is_missing", "No module named 'a_module_that_is_missing'"),
        ("zstandard.py", b"raise ImportError", r"ImportError \(/.*/zstandard\.py:1\)"),
        ("zstandard.py", b"def compress(:", r"SyntaxError: .*zstandard\.py, line 1"),
        (
            "zstandard.py",
            b"raise RuntimeError('two\\nlines')",
            r"RuntimeError: two lines \(/.*zstandard\.py:1",
        ),
        ("zstandard.py", b"open('/nothing/here')", "FileNotFoundError: .*'/nothing/here'"),
        ("zstandard.py", b"raise SystemExit(3)", r"SystemExit: 3 \(/.*zstandard\.py:1\)"),
        ("zstandard.py", b"import sys; sys.exit()", r"SystemExit \(/.*zstandard\.py:1\)"),
        ("zstandard.py", b"class E(BaseException): pass\nraise E('x')", "E: x"),
        ("zstandard.py", "raise OSError('Größe \udcff')".encode("utf-8", "surrogatepass"), "SyntaxError"),
        ("zstandard.py", b"raise OSError('Gr\\xf6\\xdfe \\udcff')", r"OSError: Größe \\xff"),
        ("zstandard.so", b"\x7fELF, and no more", r"ImportError: /.*/zstandard\.so: "),
        ("orthanc_transfers/plugin.py", b"\0", "(SyntaxError|ValueError): .*null byte"),
        ("orthanc_transfers/host/logs.py", b"1 / 0", r"ZeroDivisionError: .*host/logs\.py:1"),
        ("orthanc_transfers/__init__.py", b"raise RuntimeError('no package')", "RuntimeError: no package"),
        ("orthanc_transfers/__init__.py", b"raise SystemExit", "SystemExit"),
        ("orthanc_transfers/_startup.py", b"1 / 0", "ZeroDivisionError"),
    ],
)
def test_whatever_is_raised_while_loading_is_one_line_and_orthanc_goes_on(
    make_server: MakeServer, make_home: MakeHome, file: str, content: bytes, reason: str
) -> None:
    home = make_home()
    (home / file).write_bytes(content)
    server = make_server("broken", script=entry_of(home)).start()
    assert re.search(reason, reason_in(server))


def test_dependencies_that_were_never_installed_are_named_with_what_to_do(
    make_server: MakeServer, make_home: MakeHome
) -> None:
    home = make_home()
    (home / ".venv").unlink()
    server = make_server("bare", script=entry_of(home)).start()
    reason = reason_in(server)
    assert "No module named" in reason
    assert "install the package with its dependencies" in reason


def test_the_traceback_is_in_the_verbose_log(make_server: MakeServer, make_home: MakeHome) -> None:
    home = make_home()
    (home / "zstandard.py").write_text("1 / 0")
    server = make_server("verbose", script=entry_of(home), verbose=True).start()
    assert "Traceback" in server.log
    assert re.search(r"^I.*transfers", server.log, re.MULTILINE)


def test_an_orthanc_that_refuses_a_route_goes_on_without_the_plugin(
    make_server: MakeServer, tmp_path: Path
) -> None:
    users = script(
        tmp_path,
        f"""
import sys
sys.path[:0] = [{str(CHECKOUT)!r}, *{[path for path in sys.path if "site-packages" in path]!r}]
from orthanc_transfers.host.native.sdk import Sdk

def refuse(self, pattern, callback):
    raise OSError("no more routes")

Sdk.register_route = refuse
import orthanc_transfers
orthanc_transfers.register()
""",
    )
    server = make_server("refusing", script=users).start()
    assert "OSError: no more routes" in reason_in(server)
    server.stop()
    assert server.exit_status == 0


def test_what_fails_at_orthancs_start_and_stop_is_one_line_each_and_all_else_is_done(
    make_server: MakeServer, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    users = script(
        tmp_path,
        f"""
import sys
sys.path[:0] = [{str(CHECKOUT)!r}, *{[path for path in sys.path if "site-packages" in path]!r}]
from orthanc_transfers.jobs.ack_log import AckLogs
from orthanc_transfers.host.job_durability import JobDurability
from orthanc_transfers.receiver.pushes import PushService

def fail(*args):
    raise OSError("as if the disk were broken")

def mark(name, function):
    def marked(*args):
        with open({str(done)!r}, "a") as file:
            file.write(name + " ")
        return function(*args)
    return marked

AckLogs.drop_lost = JobDurability.close = fail
PushService.recover = mark("recovered", PushService.recover)
PushService.close = mark("closed", PushService.close)
import orthanc_transfers
orthanc_transfers.register()
""",
    )
    server = make_server("half", script=users).start()
    assert server.get("transfers/capabilities")
    server.stop()
    assert server.exit_status == 0
    assert done.read_text().split() == ["recovered", "closed"]
    lines = [line for line in server.log.splitlines() if "as if the disk were broken" in line]
    assert len(lines) == 2
    assert "Traceback" not in server.log


# --- folders that the user who runs Orthanc may not enter


NOBODY = 65534


@pytest.fixture
def make_servant(make_server: MakeServer) -> Iterator[MakeServer]:
    """As ``make_server``, for servers run by a user who is not root: where this is root, by ``nobody``."""
    made: list[OrthancServer] = []
    root = os.geteuid() == 0
    setpriv = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if root else ()

    def make(name: str, **options: Any) -> OrthancServer:
        # Not below pytest's folder, which belongs to the user who runs it.
        server = OrthancServer(name, launcher=setpriv, **options)
        made.append(server)
        if root:
            os.chown(server.folder, NOBODY, NOBODY)
        return server

    yield make
    for server in made:
        server.remove()


def test_a_virtual_environment_that_may_not_be_entered_is_named(
    make_servant: MakeServer, make_home: MakeHome
) -> None:
    home = make_home()
    (home / ".venv").unlink()
    (home / ".venv").mkdir(mode=0)
    reason = reason_in(make_servant("servant", script=entry_of(home)).start())
    assert "No module named" in reason
    assert f"the user that runs Orthanc may not enter {home}/.venv/lib/" in reason


def test_a_part_of_the_package_that_may_not_be_read_is_named(
    make_servant: MakeServer, make_home: MakeHome
) -> None:
    home = make_home()
    (home / "orthanc_transfers" / "host").chmod(0)
    try:
        reason = reason_in(make_servant("servant", script=entry_of(home)).start())
    finally:
        (home / "orthanc_transfers" / "host").chmod(0o755)
    assert "orthanc_transfers.host" in reason or "orthanc_transfers/host" in reason


def test_a_folder_among_pythons_own_that_may_not_be_entered_is_passed_over(
    make_servant: MakeServer, make_home: MakeHome
) -> None:
    home = make_home()
    closed = home / "closed"
    closed.mkdir(mode=0)
    server = make_servant("servant", script=entry_of(home))
    server.environment["PYTHONPATH"] = f"{closed}/below:{closed}"
    assert_loaded(server.start())


def test_a_staging_directory_that_may_not_be_written_is_named(
    make_servant: MakeServer, make_home: MakeHome
) -> None:
    home = make_home()
    (home / "staging").mkdir(mode=0o555)
    server = make_servant(
        "servant",
        script=entry_of(home),
        configuration={"Transfers": {"StagingDirectory": str(home / "staging" / "below")}},
    )
    assert "StagingDirectory" in reason_in(server.start())


# --- numpy, which only delta16 needs


KVM64 = (
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx lm"
    " rep_good nopl pni cx16 x2apic hypervisor"
)
"""Flags of ``/proc/cpuinfo`` on a virtual machine of that model: x86-64 without its second level."""

NOT_OFFERED = r"W.*the codec delta16\+zstd is not offered: "


def capabilities(server: OrthancServer) -> list[str]:
    codecs: list[str] = server.get("transfers/capabilities")["Codecs"]
    return codecs


def reason_against_delta16(server: OrthancServer) -> str:
    """The one line that says why; the plugin is loaded."""
    assert "transfers" in server.get("plugins")
    assert capabilities(server) == ["none", "gzip", "zstd", "split16+zstd"]
    assert "Traceback" not in server.log
    (line,) = (line for line in server.log.splitlines() if re.match(NOT_OFFERED, line))
    return line


def codecs_of_a_push_and_a_pull_each_way(a: OrthancServer, b: OrthancServer) -> set[str]:
    """Four transfers of CT, compressed; all arrive whole. Returns the codecs that were used."""
    used: set[str] = set()
    for here, there in ((a, b), (b, a)):
        for sender, receiver in ((here, there), (there, here)):
            stored = sender.upload_all(dicom_data.ct_study(6, size=128))
            resources = [resource("Patient", stored[0]["ParentPatient"])]
            if here is sender:
                job = here.send(resources, there.name, Compression="zstd")
            else:
                job = here.pull(resources, there.name, Compression="zstd")
            ended = here.wait_for_job(job["ID"])
            assert ended["State"] == "Success", ended
            used |= ended["Content"]["Codecs"].keys()
            assert receiver.md5s() == sender.md5s()
            a.clear()
            b.clear()
    return used


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lay another file over /proc/cpuinfo")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="about models of x86-64")
def test_on_a_cpu_too_old_for_numpy_it_is_not_imported_and_all_else_works_with_any_peer(
    make_server: MakeServer, make_home: MakeHome, tmp_path: Path
) -> None:
    """Real: Orthanc, and the file that tells of the CPU, another one laid over it for this process alone.

    Not real: the CPU, and so numpy, which dies of an illegal instruction as the real one does on such a CPU (2.4.6
    under ``qemu-x86_64 -cpu kvm64``).
    """
    home = make_home()
    (home / "numpy").mkdir()
    (home / "numpy" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Common KVM processor\nflags\t\t: {KVM64}\n\n")
    over = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /proc/cpuinfo && exec "$@"', str(cpuinfo))
    old = make_server("old", script=entry_of(home), launcher=over)
    new = make_server("new")
    pair(old, new)
    start_together(old, new)
    assert "this CPU lacks" in reason_against_delta16(old)
    assert "delta16+zstd" in capabilities(new)
    assert codecs_of_a_push_and_a_pull_each_way(old, new) <= {"none", "zstd", "split16+zstd"}

    # The same data on a CPU that numpy can run on: it was not for another reason that delta16 was not used.
    old.stop()
    new.stop()
    shutil.rmtree(home / "numpy")
    old.launcher = ()
    start_together(old, new)
    assert "delta16+zstd" in codecs_of_a_push_and_a_pull_each_way(old, new)


def test_a_numpy_that_refuses_the_cpu_costs_one_codec(make_server: MakeServer) -> None:
    """Real: numpy, and what it raises when it is told to do without its baseline. Not real: the CPU."""
    told = "import numpy._core._multiarray_umath as m; print(*m.__cpu_baseline__)"
    baseline = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout
    server = make_server("refused", environment={"NPY_DISABLE_CPU_FEATURES": baseline.split()[-1]}).start()
    reason = reason_against_delta16(server)
    assert re.search(r"numpy cannot be used: RuntimeError: .*baseline optimizations", reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        # As numpy 2.4.6 says it, in five lines.
        (
            "raise RuntimeError('NumPy was built with baseline optimizations: \\n(X86_V2) but your machine '"
            ' "doesn\'t support:\\n(X86_V2).")',
            r"RuntimeError: NumPy was built with baseline optimizations: \(X86_V2\) but your machine doesn't support",
        ),
        ("raise ModuleNotFoundError(\"No module named 'numpy'\")", "No module named 'numpy'"),
        ("", "numpy"),
        ("raise SystemExit(1)", "SystemExit: 1"),
    ],
)
def test_a_numpy_that_cannot_be_imported_costs_one_codec(
    make_server: MakeServer, make_home: MakeHome, content: str, reason: str
) -> None:
    home = make_home()
    (home / "numpy.py").write_text(content)
    broken, new = make_server("broken", script=entry_of(home)), make_server("new")
    pair(broken, new)
    start_together(broken, new)
    assert re.search(reason, reason_against_delta16(broken))
    assert codecs_of_a_push_and_a_pull_each_way(broken, new) <= {"none", "zstd", "split16+zstd"}


# --- the configuration


def test_paths_beyond_ascii_work_without_a_locale(make_server: MakeServer) -> None:
    """Those of the configuration. Of its ``PythonScript`` the Python plugin makes no path that Python can open then."""
    bare = ("env", "-i", "PYTHONCOERCECLOCALE=0")
    servers = []
    for name in ("a", "b"):
        server = make_server(name, launcher=bare)
        server.storage = server.folder / "Größe 病院" / name
        server.configuration.update(
            StorageDirectory=str(server.storage), IndexDirectory=f"Verzeichnis für {name} 病院"
        )
        servers.append(server)
    a, b = servers
    b.configuration["Transfers"] = {"StagingDirectory": "Übertragung 病院"}
    pair(a, b)
    start_together(a, b)
    assert codecs_of_a_push_and_a_pull_each_way(a, b)
    assert (a.storage / "Transfers" / "reports").is_dir()
    assert (b.folder / "Übertragung 病院" / "reports").is_dir()
    assert not (b.storage / "Transfers").exists()


@pytest.mark.parametrize("section", [[1], 5, "x", None])
def test_a_section_of_another_type_is_one_line(make_server: MakeServer, section: Any) -> None:
    server = make_server("bad", configuration={"Transfers": section}).start()
    assert '"Transfers" must be an object' in reason_in(server)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("StorageDirectory", 5),
        ("IndexDirectory", ["x"]),
        ("HttpTimeout", "x"),
        ("HttpProxy", 5),
        ("OrthancPeers", 5),
        ("HttpsCACertificates", 5),
    ],
)
def test_other_options_of_a_wrong_type_are_left_to_orthanc_which_names_them(
    make_server: MakeServer, option: str, value: Any
) -> None:
    """It reads them only after it has loaded its plugins, and then ends, with any plugin or none (seen on 1.10.1)."""
    server = make_server("bad", configuration={option: value})
    with pytest.raises(OrthancError, match="ended at its start"):
        server.start()
    assert f'"{option}"' in server.log
    assert "Traceback" not in server.log
    assert not (server.folder / str(value)).exists()
