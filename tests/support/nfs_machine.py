"""A machine of its own: a Linux kernel as a process (User Mode Linux); one command runs in it, a folder is on NFS.

Its other files are those of this machine. ``boot`` is called here; ``main`` is the first process inside. Who kills the
process that boots takes the power from the machine; SIGTERM reaches the command. A machine ends with its command. If
the command is stopped (SIGSTOP), so is the process that boots: continued, it continues the command.

    python nfs_machine.py SPECIFICATION COMMAND...
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import asdict, dataclass
from pathlib import Path

KERNEL = "linux.uml"
_MODULES = (
    *("fs/netfs/netfs", "fs/fscache/fscache", "net/sunrpc/sunrpc", "fs/nfs_common/grace", "fs/lockd/lockd"),
    *("net/dns_resolver/dns_resolver", "fs/nfs/nfs", "fs/nfs/nfsv4"),
)
_LOOK = 0.05
"""Seconds between two looks at what the other side has said."""


@dataclass(frozen=True)
class Machine:
    """``tap`` is its network device in this network namespace; ``export`` is mounted at ``mount_point``."""

    name: str
    tap: str
    address: str
    export: str
    mount_point: str
    options: str
    folder: str
    """For what its kernel needs here; what is in it stays if it is killed."""


def boot(machine: Machine, command: list[str]) -> int:
    """Run a command there; its status."""
    folder = Path(tempfile.mkdtemp(dir=machine.folder))
    order = {
        "machine": asdict(machine),
        "command": command,
        "folder": os.getcwd(),
        "environment": {**os.environ},
    }
    (folder / "order").write_text(json.dumps(order))
    signal.signal(signal.SIGTERM, lambda *_: (folder / "terminate").touch())
    kernel = subprocess.Popen(
        [
            # It has groups of processes of its own: all of them die with what is started here.
            *("unshare", "--pid", "--fork", "--kill-child"),
            *(KERNEL, "mem=1G", "loglevel=2", f"umid={machine.name}", f"uml_dir={folder}"),
            *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "con=null", "con0=null,fd:1"),
            f"vec0:transport=tap,ifname={machine.tap},gro=1",
            *(f"init={sys.executable}", "--", __file__, str(folder)),
        ],
        stdin=subprocess.DEVNULL,
    )
    while kernel.poll() is None:
        if (folder / "stopped").exists():
            (folder / "stopped").unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
            (folder / "continue").touch()
        time.sleep(_LOOK)
    status = folder / "status"
    code = int(status.read_text()) if status.exists() else 1
    shutil.rmtree(folder, ignore_errors=True)
    return code


def main(folder: Path) -> None:
    """Inside: mount, run, tell how it ended, halt."""
    try:
        code = _run(folder)
    except Exception as error:
        print(f"this machine cannot run its command: {error!r}", flush=True)
        code = 1
    (folder / "status").write_text(str(code))
    os.sync()
    subprocess.run(["/sbin/halt", "-f"], check=False)


def _run(folder: Path) -> int:
    order = json.loads((folder / "order").read_text())
    machine = Machine(**order["machine"])
    os.environ.update(order["environment"])
    # Lines end here as they do elsewhere.
    terminal = termios.tcgetattr(1)
    terminal[1] &= ~termios.OPOST
    termios.tcsetattr(1, termios.TCSANOW, terminal)
    _prepare(machine)
    # A group of its own, as the kernel sends signals of the terminal to the first one.
    child = subprocess.Popen(order["command"], cwd=order["folder"], start_new_session=True)
    while True:
        found, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if found == child.pid:
            if not os.WIFSTOPPED(status):
                return os.waitstatus_to_exitcode(status)
            (folder / "stopped").touch()
        for name, number in (("terminate", signal.SIGTERM), ("continue", signal.SIGCONT)):
            if (folder / name).exists():
                (folder / name).unlink()
                child.send_signal(number)
        if not found:
            time.sleep(_LOOK)


def _prepare(machine: Machine) -> None:
    modules = Path("/usr/lib/uml/modules") / platform.release() / "kernel"
    for command in (
        *("mount -t proc proc /proc", "mount -t sysfs sys /sys", "mount -t tmpfs none /run"),
        *("mkdir /dev/shm", "mount -t tmpfs none /dev/shm"),
        *(f"insmod {modules}/{name}.ko" for name in _MODULES),
        *("ip link set lo up", f"hostname {machine.name}"),
        *(f"ip address add {machine.address}/24 dev vec0", "ip link set vec0 up"),
        f"mount -t nfs -o {machine.options} {machine.export} {machine.mount_point}",
    ):
        subprocess.run(command.split(), check=True)


if __name__ == "__main__":
    if os.getpid() == 1:
        main(Path(sys.argv[1]))
    else:
        sys.exit(boot(Machine(**json.loads(sys.argv[1])), sys.argv[2:]))
