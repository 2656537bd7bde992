"""Machines at one switch whose shared folder is on NFS: a server in user space (ganesha), a client of its own in each.

Needs root, and Debian's ``nfs-ganesha-vfs``, ``nfs-common``, ``user-mode-linux`` and ``kmod``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.support import namespaces
from tests.support.nfs_machine import KERNEL, Machine
from tests.support.switched_network import SwitchedNetwork, ip
from tests.support.waiting import wait_until

MACHINE = Path(__file__).with_name("nfs_machine.py")
_SERVER = "ganesha.nfsd"


@cache
def why_not() -> str | None:
    """What is missing here; ``None`` if nothing is."""
    if os.getuid() != 0:
        return "machines with NFS need root"
    missing = [name for name in (_SERVER, KERNEL, "mount.nfs", "insmod", "ip") if shutil.which(name) is None]
    return f"there is no {', no '.join(missing)}" if missing else None


class NfsMachines(SwitchedNetwork):
    """``hosts`` of them, each with ``shared`` at the same path.

    ``options``: how they mount it. ``lease``: seconds until the server forgets what a silent one has open.
    """

    def __init__(
        self, name: str, hosts: int, shared: Path, *, options: str = "vers=4.2", lease: int = 20
    ) -> None:
        super().__init__(name, hosts)
        self.shared = shared
        self._options = options
        self._lease = lease
        self._folder = Path(tempfile.mkdtemp(prefix="nfs-"))
        self._server: subprocess.Popen[bytes] | None = None

    def inside(self, host: int) -> tuple[str, ...]:
        machine = Machine(
            name=f"machine{host}",
            tap=self._port(host),
            address=self.address(host),
            export=f"{self.hub_address}:/shared",
            mount_point=str(self.shared),
            options=f"proto=tcp,hard,{self._options}",
            folder=str(self._folder),
        )
        specification = json.dumps(vars(machine))
        return (*namespaces.inside(self._of(0)), sys.executable, str(MACHINE), specification)

    def _make(self) -> None:
        super()._make()
        self.shared.mkdir(parents=True, exist_ok=True)
        log = self._folder / "log"
        # What is changed here, beside NFS, is seen at once (Attr_Expiration_Time).
        (self._folder / "configuration").write_text(
            f"""
            NFS_CORE_PARAM {{
              Protocols = 4; Bind_addr = {self.hub_address};
              Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
            }}
            NFSv4 {{ Graceless = true; Lease_Lifetime = {self._lease}; RecoveryRoot = {self._folder}; }}
            EXPORT_DEFAULTS {{ Attr_Expiration_Time = 0; }}
            EXPORT {{
              Export_Id = 1; Path = {self.shared}; Pseudo = /shared; Access_Type = RW;
              Squash = no_root_squash; SecType = sys; FSAL {{ Name = VFS; }}
            }}
            LOG {{ Facility {{ name = FILE; destination = "{log}"; enable = active; }} }}
            """
        )
        self._server = subprocess.Popen(
            [
                *(*namespaces.inside(self._of(0)), _SERVER, "-F", "-f", self._folder / "configuration"),
                *("-p", self._folder / "pid", "-L", log),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(
            lambda: log.exists() and "NFS SERVER INITIALIZED" in log.read_text(), "there is an NFS server", 30
        )

    def _connect(self, host: int) -> None:
        ip("-n", self._of(0), "tuntap", "add", self._port(host), "mode", "tap")

    def _remove(self) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
        super()._remove()
        shutil.rmtree(self._folder, ignore_errors=True)
