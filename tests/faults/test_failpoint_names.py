"""The names of failpoints are those of methods that exist, so that a renamed method disarms no test."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.net.requests_transport import RequestsTransport
from tests.faults import failpoint_hooks
from tests.faults.failpoints import FaultPoint, check_name

FOLDER = Path(__file__).parent
PUSH = "/transfers/v2/push/0123456789abcdef0123456789abcdef"

# ``Area.write``, as ``METHODS`` has them, or ``RequestsTransport.send POST commit after``, as tests do.
LOOKS_LIKE_ONE = re.compile(r"[A-Z]\w*[a-z]\w*\.[a-z_]\w*( [A-Z]+ [a-z]+)?( before| after)?")
KINDS_OF_REQUESTS = {
    *("POST lookup", "GET chunks", "POST chunks", "GET capabilities", "GET reports"),
    *("POST push", "PUT push", "GET push", "DELETE push", "POST commit", "POST whole"),
    *("POST extras", "PUT attachments"),
}


def names_in(source: str) -> Iterator[str]:
    """All texts of a module that look like the name of a failpoint, or stand where one is expected."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if LOOKS_LIKE_ONE.fullmatch(node.value):
                yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            index = {"Failpoint": 1, "FaultPoint": 3}.get(node.func.id)
            if index is not None and len(node.args) > index:
                argument = node.args[index]
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)


def complaint(name: str) -> str | None:
    """What is wrong with a name; ``None`` if nothing is."""
    try:
        check_name(name if name.endswith((" before", " after")) else f"{name} before")
    except ValueError as error:
        return str(error)
    kind = re.search(" ([A-Z]+ [a-z]+)", name)
    if kind and kind[1] not in KINDS_OF_REQUESTS:
        return f"no request is named {kind[1]!r}"
    if name.startswith("RequestsTransport.") and not kind:
        return f"a request needs its kind: {name!r}"
    return None


def test_each_method_with_failpoints_exists() -> None:
    assert len(list(failpoint_hooks.methods())) == sum(map(len, failpoint_hooks.METHODS.values()))


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_each_failpoint_that_is_named_exists(file: Path) -> None:
    if file.name in ("failpoint_hooks.py", Path(__file__).name):
        return  # ``METHODS`` is looked at by another test; and here are wrong ones
    wrong = {name: complaint(name) for name in names_in(file.read_text())}
    assert {name: said for name, said in wrong.items() if said} == {}, f"in {file.name}"


def test_each_method_with_failpoints_is_used_by_a_test() -> None:
    used = {
        name.split(" ")[0]
        for file in FOLDER.glob("*.py")
        if file.name not in ("failpoint_hooks.py", Path(__file__).name)
        for name in names_in(file.read_text())
    }
    assert {name for names in failpoint_hooks.METHODS.values() for name in names} == used


@pytest.mark.parametrize(
    "name",
    [
        *("Area.wrote after", "Aera.write after", "Area.write", "Area.write afterwards", "write after"),
        *("RequestsTransport.send POST pusch after", "RequestsTransport.send after"),
    ],
)
def test_a_wrong_name_is_noticed(name: str) -> None:
    (found,) = set(names_in(f"Failpoint(server, {name!r}, 'kill 1')"))
    assert found == name
    assert complaint(name) or name == "Area.write"


def test_a_wrong_name_cannot_be_armed() -> None:
    with pytest.raises(ValueError, match=r"'Area\.wrote after'"):
        FaultPoint("push", "receiver", "written", "Area.wrote after")


def test_a_renamed_method_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(failpoint_hooks.METHODS, "receiver.area", ["Area.wrote"])
    with pytest.raises(LookupError, match=r"orthanc_transfers\.receiver\.area has no Area\.wrote"):
        list(failpoint_hooks.methods())


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/transfers/v2/push", " POST push"),
        ("PUT", f"{PUSH}/0/100", " PUT push"),
        ("GET", f"{PUSH}?wait=5", " GET push"),
        ("POST", f"{PUSH}/commit", " POST commit"),
        ("GET", "/transfers/chunks/0123abcd-0123abcd?offset=0", " GET chunks"),
    ],
)
def test_a_request_to_a_peer_is_named_by_its_kind(method: str, path: str, kind: str) -> None:
    # As it is called by position: else no failpoint of a request would ever be met.
    assert list(inspect.signature(RequestsTransport.send).parameters) == ["self", "request"]
    assert failpoint_hooks.request_kind((object(), PeerRequest(method, path))) == kind


def test_other_calls_have_no_kind() -> None:
    assert failpoint_hooks.request_kind((object(), "POST", "/transfers/v2/push")) == ""
