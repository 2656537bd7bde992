"""What one whole push asks of the database: every statement, those that only prove that it was there included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.model import Manifest, PushState
from orthanc_transfers.interfaces import InstanceStore
from tests.cluster.conftest import MakeNode, NodeInTest
from tests.receiver.memory_receiver import MemoryStore, Receiver, creation2_of, dicom, identify, wait_until
from tests.support.postgresql import PostgreSQL

FILES = [dicom(f"file {index}", 5000) for index in range(8)]
AREA = memoryview(b"".join(FILES))


class Node:
    """A node with a receiver, whose store waits for the database as that of the plugin does."""

    def __init__(self, node: NodeInTest, folder: Path) -> None:
        self.files = MemoryStore()
        store = node.cluster.waiting_store(cast(InstanceStore, self.files))
        self.receiver = Receiver(folder, cast(MemoryStore, store), ownership=node.owner)
        self.database = node.cluster.database

    def push(self, token: str) -> None:
        v2 = self.receiver.v2
        creation = creation2_of(FILES, token)
        v2.create(replace(creation, manifest=Manifest(creation.manifest.instances[:3]), more=len(FILES) - 3))
        push = v2.create(creation)
        for item in push.missing:
            v2.put(push.id, [(item.start, item.size)], Codec.NONE, None, AREA[item.start : item.stop])
        v2.commit(push.id)
        wait_until(lambda: v2.status(push.id).state is PushState.COMMITTED)
        # Its outcome is remembered until then.
        self.receiver.clock.seconds += self.receiver.settings.push_idle_timeout + 1
        self.receiver.pushes.expire()
        assert self.receiver.registry.find("push", token) is None


@pytest.mark.parametrize(("shared", "most"), [(True, 5), (False, 6)])
def test_a_push_asks_the_database_at_most_six_times(
    make_node: MakeNode, tmp_path: Path, shared: bool, most: int
) -> None:
    node = Node(make_node(shared=shared), tmp_path)
    node.push("a" * 32)  # it also deletes old reports, once an hour
    node.files.files.clear()
    before = node.database.requests
    node.push("b" * 32)
    assert node.database.requests - before == most
    assert len(node.files.files) == len(FILES)
    node.receiver.stop()


def test_what_is_here_is_not_asked_for_because_the_database_went_away(
    make_node: MakeNode, tmp_path: Path, postgresql: PostgreSQL
) -> None:
    node = Node(make_node(), tmp_path)
    for one in FILES:
        node.files.put(one)
    times = 0

    def look_up(*_: object) -> None:
        nonlocal times
        times += 1
        if times == 1:
            # As Orthanc says it whose index is away.
            node.files.files.clear()
            postgresql.stop()
            postgresql.start()
        elif times == 2:
            for one in FILES:
                node.files.put(one)

    node.files.before_md5s = look_up
    push = node.receiver.v2.create(creation2_of(FILES))
    assert not push.missing
    assert times == 2
    assert node.files.files.keys() == {identify(one) for one in FILES}
    node.receiver.stop()
