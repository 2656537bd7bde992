"""``python -m orthanc_transfers doctor | send | pull | status``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import requests

from orthanc_transfers._version import __version__
from orthanc_transfers.cli import doctor, transfer
from orthanc_transfers.cli.client import Client, Refused

_LEVELS = ("patient", "study", "series", "instance")


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns the status to exit with: 0, 1 for what failed or is wrong, 2 for a bad command line."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return 130
    except Refused as refused:
        print(f"error: {refused}")
    except requests.RequestException as error:
        print(f"error: {options.url} cannot be reached: {error}")
    return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "doctor":
        return doctor.run(Path(options.configuration), ask_peers=not options.offline)
    client = Client(options.url, options.user)
    if options.command == "status":
        return transfer.show_status(client, options.limit)
    resources = [
        {"Level": level.capitalize(), "ID": identifier}
        for level in _LEVELS
        for identifier in getattr(options, level) or []
    ]
    order = {
        "Resources": resources,
        "Peer": options.peer,
        "Compression": options.compression,
        "Priority": options.priority,
        # A send by which the peer pulls has a job here, too.
        "Synchronous": False,
    }
    return transfer.start(client, options.command, order, wait=not options.no_wait)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m orthanc_transfers", description="Transfers between Orthanc servers."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    looks = commands.add_parser(
        "doctor", help="say what is missing or will not work in a configuration of Orthanc"
    )
    looks.add_argument(
        "configuration", nargs="?", default="/etc/orthanc", help="file or folder (default: %(default)s)"
    )
    looks.add_argument("--offline", action="store_true", help="do not ask the peers")
    for name, text in (
        ("send", "let an Orthanc send to a peer"),
        ("pull", "let an Orthanc fetch from a peer"),
    ):
        command = commands.add_parser(name, help=text)
        _add_server(command)
        command.add_argument("peer", help="name of the peer in the configuration of that Orthanc")
        for level in _LEVELS:
            command.add_argument(
                f"--{level}", action="append", metavar="ID", help="Orthanc identifier; may be repeated"
            )
        command.add_argument("--compression", default="auto", choices=("auto", "zstd", "gzip", "none"))
        command.add_argument("--priority", type=int, default=0)
        command.add_argument("--no-wait", action="store_true", help="print the identifier of the job and end")
    status = commands.add_parser("status", help="list the transfers of an Orthanc")
    _add_server(status)
    status.add_argument("--limit", type=int, default=20, help="how many (default: %(default)s)")
    return parser


def _add_server(command: argparse.ArgumentParser) -> None:
    command.add_argument("url", help="root of the Orthanc, such as http://localhost:8042")
    command.add_argument("-u", "--user", metavar="USER:PASSWORD", help="login")
