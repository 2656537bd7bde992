"""The ports of the servers that tests start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from tests.support.orthanc_server import CHECKOUT
from tests.support.ports import BLOCK, Ports, free_port

FIRST = 1_024 + os.getpid() % 8_000
TWO_BLOCKS = (FIRST, FIRST + 2 * BLOCK)
"""Below those of servers; other ones in each run of this test."""


def test_outgoing_connections_take_no_port_of_a_server_that_is_to_start_or_is_stopped() -> None:
    ports = {free_port() for _ in range(50)}
    with socket.socket() as outgoing:
        outgoing.bind(("127.0.0.1", 0))  # as the kernel does for them
        assert max(ports) < outgoing.getsockname()[1]
    assert len(ports) == 50


def test_a_port_that_one_run_of_tests_has_taken_is_not_given_to_another_while_its_server_is_down() -> None:
    taker = f"""
from tests.support.ports import Ports
ports = Ports{TWO_BLOCKS}
print(ports.take(), flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", taker], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        ports = Ports(*TWO_BLOCKS)
        # Its own once more when no others are left.
        mine = [ports.take() for _ in range(2 * BLOCK)]
        assert taken not in mine
        other.communicate("\n")
    assert taken in [ports.take() for _ in range(2 * BLOCK)]
