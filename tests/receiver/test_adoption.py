"""A node of a cluster takes over what another was receiving, and lets go of what it has lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import Canceled, HostError, ImportRefused, UnknownTransaction
from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.interfaces import Imported
from orthanc_transfers.receiver.adoption import Successor
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.disk_errors import DiskFailed
from orthanc_transfers.receiver.leftovers import Fate, OwnLeftovers
from orthanc_transfers.receiver.memory_area import MemoryArea
from orthanc_transfers.receiver.memory_staging import MemoryStaging
from orthanc_transfers.receiver.ownership import Adoption, Fenced, Inherited, Node
from orthanc_transfers.receiver.shared_instances import Claim, SharedInstances
from orthanc_transfers.receiver.single_server import SingleServer
from tests.receiver.memory_receiver import (
    PATIENCE,
    MemoryStore,
    Receiver,
    crash_while_importing,
    creation2_of,
    dicom,
    fill,
    hold_imports,
    identify,
    manifest_of,
    wait_until,
)

FILES = [dicom(f"file {index}", 5000) for index in range(8)]
DEAD = Node(1, "first", "http://127.0.0.1:1", "node-1")
ON_ITS_OWN_DISK = Node(1, "first", "http://127.0.0.1:1", "")


class Cluster:
    """Two nodes with one store; the staging of the first is ``node-1``, that of the second ``node-2``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = MemoryStore()
        self.first = Receiver(root / "node-1", self.store)
        self.second = Receiver(root / "node-2", self.store)
        second = self.second
        self.successor = Successor(second.staging, second.registry, second.pushes, root)

    def adopt(self, *identifiers: str) -> None:
        self.successor.adopt([Adoption(DEAD, (), frozenset(identifiers))])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    both = Cluster(tmp_path)
    yield both
    for receiver in (both.first, both.second):
        receiver.stop()


def test_what_had_arrived_is_not_sent_again(cluster: Cluster) -> None:
    creation = creation2_of(FILES)
    push = cluster.first.v2.create(creation)
    area = b"".join(FILES)
    half = len(FILES[0]) * 4
    cluster.first.v2.put(push.id, [(0, half)], Codec.NONE, None, memoryview(area[:half]))
    cluster.first.stop()
    cluster.adopt(push.id)
    status = cluster.second.v2.create(creation)
    assert status.id == push.id
    assert list(status.missing) == [Range(half, len(area))]
    cluster.second.v2.put(push.id, [(half, len(area) - half)], Codec.NONE, None, memoryview(area[half:]))
    cluster.second.v2.commit(push.id)
    wait_until(lambda: cluster.second.v2.status(push.id).state is PushState.COMMITTED)
    assert len(cluster.store.files) == len(FILES)
    assert not (cluster.root / "node-1").exists()


def test_what_was_taken_over_expires_once_nobody_goes_on_with_it(cluster: Cluster) -> None:
    push = cluster.first.v2.create(creation2_of(FILES))
    cluster.first.stop()
    cluster.adopt(push.id)
    second = cluster.second
    second.clock.seconds += second.settings.push_idle_timeout - 1
    second.pushes.expire()
    assert [one.id for one in second.registry.all()] == [push.id]
    second.clock.seconds += 2
    second.pushes.expire()
    assert second.registry.all() == []
    assert list(cluster.root.rglob("area")) == []


def test_an_interrupted_import_is_rolled_forward(cluster: Cluster) -> None:
    identifier = crash_while_importing(cluster.first, FILES)
    assert 0 < len(cluster.store.files) < len(FILES)
    cluster.adopt(identifier)
    wait_until(lambda: len(cluster.store.files) == len(FILES))


def test_a_node_that_is_only_stopped_writes_into_no_journal_of_its_successor(cluster: Cluster) -> None:
    creation = creation2_of(FILES)
    push = cluster.first.v2.create(creation)
    area = b"".join(FILES)
    cluster.first.v2.put(push.id, [(0, 100)], Codec.NONE, None, memoryview(area[:100]))
    cluster.adopt(push.id)
    # It does not know yet, and its files are open.
    with contextlib.suppress(UnknownTransaction):
        cluster.first.v2.put(push.id, [(100, 100)], Codec.NONE, None, memoryview(area[100:200]))
    again = Receiver(cluster.root / "again", cluster.store)
    third = Successor(again.staging, again.registry, again.pushes, cluster.root)
    cluster.second.stop()
    third.adopt([Adoption(Node(2, "second", "", "node-2"), (), frozenset([push.id]))])
    assert again.v2.status(push.id).missing[0].start == 100
    again.stop()


def announced(cluster: Cluster, count: int) -> set[str]:
    """Pushes that the first node has begun to receive."""
    return {
        cluster.first.v2.create(creation2_of(FILES, token=f"{number:032x}")).id for number in range(count)
    }


@pytest.fixture
def forgotten(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the second node has deleted from the list of who receives what."""
    found: list[str] = []
    monkeypatch.setattr(cluster.second.registry.ownership, "forget", found.append)
    return found


def here(cluster: Cluster) -> set[str]:
    return {one.id for one in cluster.second.registry.all()}


def test_what_an_heir_had_moved_before_it_died_too_is_found_in_its_folder(
    cluster: Cluster, forgotten: list[str]
) -> None:
    pushes = announced(cluster, 3)
    cluster.first.stop()
    moved = min(pushes)
    (cluster.root / "node-3").mkdir()
    (cluster.root / "node-1" / moved).rename(cluster.root / "node-3" / moved)
    heir = Node(3, "third", "http://127.0.0.1:3", "node-3")
    cluster.successor.adopt([Adoption(DEAD, (), frozenset(pushes)), Adoption(heir, (), frozenset())])
    assert here(cluster) == pushes
    assert forgotten == []


def test_what_another_one_moves_meanwhile_is_not_missed(
    cluster: Cluster, forgotten: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An heir that is stopping, and has not ended yet."""
    pushes = announced(cluster, 3)
    cluster.first.stop()
    (cluster.root / "node-3").mkdir()
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        if Path(source).name == max(pushes) and Path(source).parent.name == "node-1":
            rename(source, cluster.root / "node-3" / max(pushes))
        rename(source, target)

    monkeypatch.setattr("os.rename", late)
    heir = Node(3, "third", "http://127.0.0.1:3", "node-3")
    cluster.successor.adopt([Adoption(DEAD, (), frozenset(pushes)), Adoption(heir, (), frozenset())])
    assert here(cluster) == pushes
    assert forgotten == []


@pytest.mark.parametrize("failing", ["reading", "moving"])
def test_an_adoption_that_fails_on_its_way_loses_nothing(
    cluster: Cluster, forgotten: list[str], monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    pushes = announced(cluster, 3)
    cluster.first.stop()
    adoption = Adoption(DEAD, (), frozenset(pushes))
    reopen, rename = Area.reopen, os.rename
    second = sorted(pushes)[1]

    def unreadable(directory: Path, *, shared: bool) -> Area:
        if directory.name == second:
            raise OSError(5, "Input/output error")
        return reopen(directory, shared=shared)

    def immovable(source: Path, target: Path) -> None:
        if Path(source).name == second:
            raise OSError(5, "Input/output error")
        rename(source, target)

    with monkeypatch.context() as broken:
        if failing == "reading":
            broken.setattr(Area, "reopen", unreadable)
        else:
            broken.setattr("os.rename", immovable)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                cluster.successor.adopt([adoption])
    cluster.successor.adopt([adoption])
    assert here(cluster) == pushes
    assert forgotten == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_is_not_there_because_the_storage_is_away_is_not_given_up(
    cluster: Cluster, forgotten: list[str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    pushes = announced(cluster, 3)
    cluster.first.stop()
    away, calls = cluster.root / "away", iter(range(100))

    def unmount() -> None:
        away.mkdir()
        for name in ("node-1", "node-2") if when == "before" else ("node-2",):
            (cluster.root / name).rename(away / name)

    def gone() -> None:
        if next(calls) == 1:
            unmount()

    with monkeypatch.context() as broken:
        if when == "before":
            unmount()
        else:
            broken.setattr(cluster.second.registry.ownership, "check", gone)
        with pytest.raises(FileNotFoundError):
            cluster.adopt(*pushes)
    assert forgotten == []
    for path in away.iterdir():
        path.rename(cluster.root / path.name)
    cluster.adopt(*pushes)
    assert here(cluster) == pushes
    assert forgotten == []


def test_who_stops_takes_nothing_over_any_more(cluster: Cluster, forgotten: list[str]) -> None:
    pushes = announced(cluster, 2)
    cluster.first.stop()
    cluster.successor.stop()
    with pytest.raises(Canceled):
        cluster.successor.adopt([Adoption(DEAD, (), frozenset(pushes))])
    assert here(cluster) == set()
    assert forgotten == []
    assert {path.name for path in (cluster.root / "node-1").iterdir()} >= pushes


def test_pulls_are_left_to_their_jobs(cluster: Cluster) -> None:
    pull = cluster.first.pull(FILES)
    fill(pull, FILES)
    cluster.first.stop()
    cluster.adopt(pull.id)
    assert cluster.second.registry.all() == []
    assert {path.name for path in (cluster.root / "node-2").iterdir()} <= {"lock", "reports"}


@pytest.mark.parametrize("imported", [3, len(FILES)])
def test_of_a_disk_that_is_gone_the_database_tells(cluster: Cluster, imported: int) -> None:
    """What had been imported completely is committed; a part of it is undone."""
    for data in FILES[:imported]:
        cluster.store.put(data)
    push = cluster.first.v2.create(creation2_of(FILES))
    meta = {
        "kind": "push",
        "token": "b" * 32,
        "resumable": True,
        "growing": False,
        "peer": None,
        "created": 0.0,
        "aliases": ["b" * 32],
        "meta": {"version": 2, "codec": "none"},
    }
    inherited = Inherited(push.id, meta, manifest_of(FILES), frozenset(range(len(FILES))))
    cluster.successor.adopt([Adoption(ON_ITS_OWN_DISK, [inherited], frozenset([push.id]))])
    if imported == len(FILES):
        wait_until(lambda: cluster.second.v2.status(push.id).state is PushState.COMMITTED)
    else:
        wait_until(lambda: not cluster.store.files)
        wait_until(lambda: cluster.second.v2.status(push.id).state is PushState.RECEIVING)


def test_who_has_lost_all_imports_nothing_more_and_undoes_nothing(cluster: Cluster) -> None:
    first = cluster.first
    begun, go_on = hold_imports(first, after=3, hang=True)
    push = first.v2.create(creation2_of(FILES))
    area = b"".join(FILES)
    first.v2.put(push.id, [(0, len(area))], Codec.NONE, None, memoryview(area))
    transfer = first.registry.find("push", "b" * 32)
    assert transfer is not None
    transfer.commit_in_background()
    assert begun.wait(PATIENCE)
    go_on.set()
    Successor(first.staging, first.registry, first.pushes, None).let_go()
    with contextlib.suppress(Canceled):
        transfer.await_commit(PATIENCE)
    assert cluster.store.removed == []
    assert first.registry.all() == []
    with pytest.raises(UnknownTransaction):
        first.v2.status(push.id)
    assert cluster.store.files.items() <= {identify(data): data for data in FILES}.items()
    assert len(cluster.store.files) >= 3
    # It takes part again.
    other = first.v2.create(creation2_of(FILES, "c" * 32))
    assert first.v2.status(other.id).state is PushState.RECEIVING


class StoppedWhileImporting(SingleServer):
    """Another node has taken over, which this one learns when it asks."""

    lost = False

    def check(self) -> None:
        if self.lost:
            self.fenced()

    @staticmethod
    def fenced() -> None:
        raise Fenced


def test_who_was_stopped_and_fails_when_it_goes_on_takes_no_bytes_from_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ownership = MemoryStore(), StoppedWhileImporting()
    receiver = Receiver(tmp_path, store, ownership=ownership)

    def fail(data: object) -> Imported:
        ownership.lost = True
        raise ImportRefused("the database closed the connection meanwhile")

    monkeypatch.setattr(store, "add", fail)
    push = receiver.v2.create(creation2_of(FILES))
    area = b"".join(FILES)
    receiver.v2.put(push.id, [(0, len(area))], Codec.NONE, None, memoryview(area))
    transfer = receiver.registry.find("push", "b" * 32)
    assert transfer is not None
    with pytest.raises(Fenced):
        transfer.commit()
    (file,) = tmp_path.rglob("area")
    assert file.read_bytes() == area
    # Nor does it tell senders what it lacks.
    with pytest.raises(Fenced):
        receiver.v2.status(push.id)
    with pytest.raises(Fenced):
        receiver.v2.create(creation2_of(FILES))
    receiver.stop()


def test_who_was_stopped_deletes_nothing_that_others_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, ownership = MemoryStore(), StoppedWhileImporting()
    receiver = Receiver(tmp_path, store, ownership=ownership)
    others, fail = store.put(FILES[0]), SharedInstances.fail

    def stopped(shared: SharedInstances, claim: Claim, remove: Callable[[str], None]) -> None:
        claim.inherited.add(others)
        ownership.lost = True
        fail(shared, claim, remove)

    monkeypatch.setattr(SharedInstances, "fail", stopped)
    store.refused[identify(FILES[1])] = "no room"
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(Fenced):
        transfer.commit()
    assert set(store.files) == {others}
    receiver.stop()


def test_who_was_stopped_deletes_nothing_as_damaged(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = crash_while_importing(cluster.first, FILES)
    before, asked = set(cluster.store.files), threading.Event()

    def stopped(*_: object) -> bool:
        monkeypatch.setattr(cluster.second.registry.ownership, "check", StoppedWhileImporting.fenced)
        asked.set()
        return False  # its successor has imported it anew since

    monkeypatch.setattr(cluster.store, "is_intact", stopped)
    cluster.adopt(identifier)
    assert asked.wait(PATIENCE)
    cluster.second.stop()
    assert set(cluster.store.files) == before


class StoppedWhileDeleting(OwnLeftovers):
    """What was left over, of a node that is stopped just before it deletes any."""

    begun = 0

    def begin(self, transfer: str, instance: str) -> Fate:
        self.begun += 1
        return Fate.DELETE

    def check(self) -> None:
        if self.begun:
            raise Fenced


def test_who_was_stopped_deletes_no_leftovers(tmp_path: Path) -> None:
    store, ownership, leftovers = MemoryStore(), SingleServer(), StoppedWhileDeleting()
    ownership._leftovers = leftovers
    receiver = Receiver(tmp_path, store, ownership=ownership)

    def full(_: str) -> None:
        raise HostError("the disk of the index is full", 1)

    store.before_remove, store.refused[identify(FILES[7])] = full, "no room"
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused):
        transfer.commit()
    left = set(store.files)
    store.before_remove = lambda _: None
    wait_until(lambda: leftovers.begun > 1)
    receiver.stop()
    assert left
    assert set(store.files) == left


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("step", ["create", "put", "grow"])
def test_an_error_of_the_disk_may_be_that_another_node_took_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, lost: bool
) -> None:
    ownership = StoppedWhileImporting()
    receiver = Receiver(tmp_path, ownership=ownership)

    def stopped(*_: object, **__: object) -> None:
        # It goes on after another node has moved its folder away.
        for path in list(tmp_path.rglob("area")):
            shutil.rmtree(path.parent)
        ownership.lost = lost
        raise DiskFailed("no such file")

    if step == "create":
        monkeypatch.setattr(Area, "create", stopped)
    else:
        few = step == "grow"
        begun = receiver.open(manifest_of(FILES[:4] if few else FILES), more=4 if few else 0)
        with contextlib.suppress(DiskFailed):
            stopped()

    def go_on() -> None:
        if step == "put":
            begun.write([Range(0, len(FILES[0]))], memoryview(FILES[0]))
        else:
            receiver.pull(FILES)

    with pytest.raises(Fenced if lost else DiskFailed):
        go_on()
    receiver.stop()


def test_a_pull_that_cannot_be_ended_here_is_left_to_its_job(cluster: Cluster) -> None:
    identifier = crash_while_importing(cluster.first, FILES, kind="pull")
    (file,) = cluster.root.rglob("area")
    file.write_bytes(bytes(file.stat().st_size))
    cluster.adopt(identifier)
    wait_until(lambda: cluster.second.registry.all() == [])


class StoppedAfterItsClaim(SingleServer):
    """Another node has taken over before anything was laid down."""

    lost = False

    def claim(self, *arguments: Any, **options: Any) -> None:
        self.lost = True

    def check(self) -> None:
        if self.lost:
            raise Fenced


@pytest.mark.parametrize("in_memory", [True, False])
def test_who_has_lost_a_transfer_before_it_was_laid_down_leaves_nothing_of_it(
    tmp_path: Path, in_memory: bool
) -> None:
    ownership = StoppedAfterItsClaim()
    receiver = Receiver(tmp_path / "staging", ownership=ownership)
    try:
        with pytest.raises(Fenced):
            receiver.pull(FILES, in_memory=in_memory)
        assert receiver.registry.all() == []
        assert list(receiver.root.rglob("area")) == []
        ownership.lost = False
        ownership.claim = lambda *arguments, **options: None  # type: ignore[method-assign]
        assert receiver.pull(FILES, in_memory=in_memory).state is PushState.RECEIVING
    finally:
        receiver.stop()


class TookPartAgainSince(SingleServer):
    """This node has lost all since the claim, and takes part again: what it asks now is of its new number."""

    receiver: Receiver | None = None
    forgotten: tuple[str, ...] = ()

    def check(self) -> None:
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.registry.abandon()

    def forget(self, identifier: str) -> None:
        self.forgotten += (identifier,)


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_was_claimed_before_all_was_lost_is_no_transfer_of_this_node(
    tmp_path: Path, in_memory: bool
) -> None:
    ownership = TookPartAgainSince()
    ownership.receiver = receiver = Receiver(tmp_path / "staging", ownership=ownership)
    try:
        with pytest.raises(Fenced):
            receiver.pull(FILES, in_memory=in_memory)
        assert receiver.registry.all() == []
        assert len(ownership.forgotten) == 1
        assert list(receiver.root.rglob("area")) == []
        assert receiver.pull(FILES, in_memory=in_memory).state is PushState.RECEIVING
    finally:
        receiver.stop()


def test_what_is_adopted_shares_no_import_log_with_what_arrives_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryStaging(tmp_path / "in-memory")
    arrived: list[MemoryArea | None] = []
    empty = memory._empty

    def empty_while_another_arrives(number: int) -> None:
        if not arrived:
            arrived.append(None)
            arrived[0] = memory.create("b" * 32, manifest_of(FILES), {})
        empty(number)

    monkeypatch.setattr(memory, "_empty", empty_while_another_arrives)
    adopted = memory.adopt_record("a" * 32, manifest_of(FILES), {}, {0}, None)
    (other,) = arrived
    assert other is not None
    assert adopted.directory != other.directory
