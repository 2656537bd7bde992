"""What a job transfers beside DICOM, and what it says of the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orthanc_transfers.core.extras import CHOSEN, Accepted, Extra, Kind
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.jobs.context import RunContext

_MAX_NOTES = 100

_NONE = Accepted()


def receiver_takes(context: RunContext, capabilities: Capabilities | None, *, sends: bool) -> Accepted:
    """What the receiving side takes: the peer, if this side ``sends``, or this server.

    Nothing unless both know of it.
    """
    if capabilities is None or capabilities.extras is None or context.services.extras is None:
        return _NONE
    return capabilities.extras if sends else context.services.extras.announced


def kinds(context: RunContext, capabilities: Capabilities | None, *, sends: bool) -> frozenset[Kind]:
    """What travels."""
    return context.order.extras.kinds(receiver_takes(context, capabilities, sends=sends))


def as_received(context: RunContext, items: Iterable[Extra]) -> tuple[Extra, ...]:
    """Items of instances that are other ones at the receiver, since they are transcoded: there they belong to these."""
    renamed = {original: sent for sent, original in context.status.originals.items()}
    return tuple(
        replace(one, resource=replace(one.resource, id=renamed.get(one.resource.id, one.resource.id)))
        if renamed
        else one
        for one in items
    )


def say_untransferable(context: RunContext, capabilities: Capabilities | None, *, sends: bool) -> None:
    """Show in the job what was asked for and cannot travel, and why."""
    peer, policy = context.order.peer, context.services.extras
    taken = receiver_takes(context, capabilities, sends=sends)
    receiver = f"peer {peer}" if sends else "this server"
    notes = []
    for kind in CHOSEN:
        if kind not in context.order.extras.asked:
            continue
        what = kind.value.lower()
        if capabilities is None:
            notes.append(f"{what}: peer {peer} speaks version 1 of the protocol, which knows of DICOM only")
        elif capabilities.extras is None:
            notes.append(
                f"{what}: peer {peer} has an earlier release of the plugin, which knows of DICOM only"
            )
        elif policy is None or kind not in policy.store.kinds:
            notes.append(f"{what}: the Orthanc of this server has none in its version")
        elif not taken.possible(kind):
            notes.append(f"{what}: {receiver} does not take them (AcceptMetadata, or the version of Orthanc)")
    say(context, notes)


def say(context: RunContext, notes: Iterable[str]) -> None:
    """Show sentences on what is not transferred, each once."""
    shown = context.status.not_transferred
    for note in notes:
        if note not in shown and len(shown) < _MAX_NOTES:
            shown.append(note)
