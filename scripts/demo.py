"""Two real Orthancs with the plugin: one study is pushed from A to B, another pulled, all of it checked.

`make demo` runs this. With --exit it ends after the check, with status 0 only if all is well.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from tests.support import dicom_data  # noqa: E402  (importable from here on only)
from tests.support.orthanc_client import FINISHED, OrthancError, StatusError, resource  # noqa: E402
from tests.support.orthanc_server import OrthancServer, configured_pair, start_together  # noqa: E402
from tests.support.ports import free_port, port_is_free  # noqa: E402

PUSHED_SLICES = 300
PULLED_SLICES = 100
BAR_WIDTH = 30


class DemoError(Exception):
    """Something is not as promised; the text is for the user of the demo."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--exit", action="store_true", help="end after the check instead of staying up")
    parser.add_argument("--folder", type=Path, default=CHECKOUT / ".demo", help="where the data goes (.demo)")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.absolute()
    # A plain kill cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    servers: list[OrthancServer] = []
    try:
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            _only_one(lock)
            _run(servers, folder, arguments.exit)
    except KeyboardInterrupt:
        print("\nInterrupted.")
        return 130
    except (DemoError, OrthancError, TimeoutError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        for server in servers:
            print(f"All that {server.name} logged: {server.log_file}", file=sys.stderr)
        return 1
    finally:
        for server in servers:
            server.kill()
    return 0


def _only_one(lock: Any) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise DemoError("another demo runs in this checkout; end that one first (Ctrl-C)") from None


def _run(servers: list[OrthancServer], folder: Path, leave: bool) -> None:
    a, b = _start(servers, folder)
    pushed, pulled = _fill(a)

    print(f"\nPush: POST {a.url}transfers/send")
    _follow(a, a.send([pushed], "B", Compression="auto")["ID"])
    _check(a, b, f"studies/{pushed['ID']}")

    print(f"\nPull: POST {b.url}transfers/pull")
    _follow(b, b.pull(pulled, "A", Compression="auto")["ID"])
    _check(a, b)

    print("\nAll is well. Have a look:")
    print(f"  A  {a.url}transfers/app/  and  {a.url}app/explorer.html")
    print(f"  B  {b.url}transfers/app/  and  {b.url}app/explorer.html")
    if leave:
        return
    _leave_some(a, pushed)
    print(
        "The first ones are the page of all transfers, with some to look at; one waits for a peer that is not there."
    )
    print("On the page of a patient, study or series: the button “Transfers accelerator”. Ctrl-C ends both.")
    try:
        while all(server.running for server in servers):
            time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nStopping both Orthancs.")
        for server in servers:
            server.stop()
        return
    raise DemoError("an Orthanc ended by itself")


def _leave_some(a: OrthancServer, study: dict[str, str]) -> None:
    """A few more transfers to look at: one for each series, one of what is there already, one to no server."""
    for series in a.get(f"studies/{study['ID']}")["Series"]:
        a.send([resource("Series", series)], "B", Priority=1)
    a.send([study], "B", Compression="none")
    a.put("peers/Closed", {"Url": f"http://127.0.0.1:{free_port()}/"})
    a.send([study], "Closed")


def _start(servers: list[OrthancServer], folder: Path) -> tuple[OrthancServer, OrthancServer]:
    ports = [port if port_is_free(port) else free_port() for port in (8042, 8043)]
    for name in ("orthanc-a", "orthanc-b"):
        shutil.rmtree(folder / name, ignore_errors=True)
    a, b = configured_pair(folder, http_ports=(ports[0], ports[1]))
    servers += [a, b]
    for server in servers:
        # Open to this machine only, and so without a login.
        server.configuration.update(RemoteAccessAllowed=False, AuthenticationEnabled=False)
    start_together(a, b)
    for server in servers:
        print(f"Orthanc {server.get('system')['Version']} “{server.name}” runs at {server.url}")
        _check_plugin(server)
    return a, b


def _check_plugin(server: OrthancServer) -> None:
    try:
        plugin = server.get("plugins/transfers")
    except StatusError:
        said = [line for line in server.log.splitlines() if "ransfers" in line or "Python" in line]
        raise DemoError(
            f"the plugin did not load into {server.name}; its log says:\n" + "\n".join(said[-5:])
        ) from None
    print(f"  with the plugin “{plugin['ID']}” {plugin['Version']}; peers: {server.get('transfers/peers')}")


def _fill(server: OrthancServer) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Put DICOM on a server: what to push, and what to pull."""
    print(f"\nMaking DICOM, and storing it on {server.name}:")

    def store(what: str, files: list[bytes]) -> list[dict[str, Any]]:
        started = time.monotonic()
        stored = server.upload_all(files)
        size = sum(map(len, files)) / 2**20  # the MB of Orthanc
        print(f"  {what}: {len(files)} instances, {size:.1f} MB, {time.monotonic() - started:.1f} s")
        return stored

    pushed = store("a CT study to push", list(dicom_data.ct_study(PUSHED_SLICES, series=3, name="Demo^Push")))
    pulled = store("a CT study to pull", list(dicom_data.ct_study(PULLED_SLICES, name="Demo^Pull", seed=1)))
    real = store(
        "real files of many modalities, to pull as well",
        [path.read_bytes() for path in dicom_data.real_files()],
    )
    patients = sorted({item["ParentPatient"] for item in real})
    return (
        resource("Study", pushed[0]["ParentStudy"]),
        [resource("Study", pulled[0]["ParentStudy"])] + [resource("Patient", one) for one in patients],
    )


def _follow(server: OrthancServer, identifier: str) -> None:
    """Show the progress of a job until it has ended. Raises ``DemoError`` if it failed."""
    print(f"  job: {server.url}jobs/{identifier}")
    draw = _progress_bar()
    while True:
        job = server.job(identifier)
        draw(job)
        if job["State"] in FINISHED:
            break
        time.sleep(0.1)
    if job["State"] != "Success":
        why = job["Content"].get("Error") or job.get("ErrorDetails") or job["ErrorDescription"]
        raise DemoError(f"the job ended as {job['State']}: {why}")


def _progress_bar() -> Callable[[dict[str, Any]], None]:
    """Draws a job over and over in one line of a terminal; elsewhere its end alone."""
    started = time.monotonic()

    def draw(job: dict[str, Any]) -> None:
        ended = job["State"] in FINISHED
        if not ended and not sys.stdout.isatty():
            return
        content = job["Content"]
        if not content and not ended:
            return
        filled = round(BAR_WIDTH * job["Progress"] / 100)
        wire = content.get("UploadedSizeMB", content.get("DownloadedSizeMB", 0))
        line = (
            f"  [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {job['Progress']:3} % {job['State']}: "
            f"{content.get('TotalInstances', '?')} instances, {content.get('TotalSizeMB', '?')} MB; "
            f"{wire} MB on the wire, {content.get('NetworkSpeedKBs', 0) / 1000:.1f} MB/s, "
            f"{time.monotonic() - started:.1f} s"
        )
        clear = "\r\x1b[K" if sys.stdout.isatty() else ""
        print(f"{clear}{line}", end="\n" if ended else "", flush=True)

    return draw


def _check(a: OrthancServer, b: OrthancServer, below: str = "") -> None:
    """Raises ``DemoError`` unless B has what A has, each instance with the same MD5."""
    wanted, found = a.md5s(below), b.md5s(below)
    missing = wanted.keys() - found.keys()
    wrong = [one for one in wanted.keys() & found.keys() if wanted[one] != found[one]]
    if missing or wrong:
        raise DemoError(f"{b.name} lacks {len(missing)} instances, and {len(wrong)} have another MD5")
    print(
        f"  checked: all {len(wanted)} instances are on {b.name}, each with the MD5 that it has on {a.name}"
    )


if __name__ == "__main__":
    sys.exit(main())
