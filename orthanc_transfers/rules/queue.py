"""The queue of the rules on disk: what is to be sent, is being sent, was sent.

Each method is one transaction at most.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.model import Level, Resource
from orthanc_transfers.core.rule import Rule
from orthanc_transfers.core.rule_entry import ACTIVE, ENDED, Entry, EntryState
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.rules.database import RuleDatabase

_COLUMNS = frozenset(
    {
        *("state", "checked", "attempts", "turn", "peer", "transfer", "job", "held", "first_try", "next_try"),
        *("ended", "said", "refusals", "told", "stamp"),
    }
)

_ACTIVE = tuple(state.value for state in ACTIVE)
_ENDED = tuple(state.value for state in ENDED)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in Orthanc's list of changes, of which it may begin a new one: another database."""

    epoch: int = 0
    change: int | None = None


class Queue:
    """Thread-safe. Methods raise ``sqlite3.Error``, ``OSError``."""

    def __init__(self, database: RuleDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # --- adding

    def add(
        self,
        writer: sqlite3.Connection,
        rule: Rule,
        resource: Resource,
        origin: str,
        position: Position | None = None,
        stamp: str | None = None,
        only: str | None = None,
    ) -> None:
        """One entry, or one for each destination that is to get it: on disk once the transaction has ended.

        Never twice for one change; what waits already is sent as it is then, so that it needs no other entry.
        ``stamp``: its filter was asked, when the resource had last changed at that moment. ``only``: for no other
        destination.
        """
        place = position or Position()
        checked = int(stamp is not None)
        for destination in rule.places:
            if only is not None and destination not in ("", only):
                continue
            again = writer.execute(
                "UPDATE OR IGNORE entries SET epoch = ?, change = ?, checked = ?, stamp = ?"
                " WHERE rule = ? AND destination = ? AND resource = ? AND state = ?",
                (
                    *(place.epoch, place.change, checked, stamp, rule.name, destination, resource.id),
                    EntryState.WAITING.value,
                ),
            )
            if again.rowcount:
                continue
            writer.execute(
                "INSERT OR IGNORE INTO entries"
                " (rule, destination, level, resource, epoch, change, origin, state, queued, queued_at, checked, stamp)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(rule.name, destination, resource.level.value, resource.id, place.epoch, place.change),
                    *(
                        origin,
                        EntryState.WAITING.value,
                        self._clock.now(),
                        self._database.now,
                        checked,
                        stamp,
                    ),
                ),
            )

    def follow(self, changes: Changes, rule: Rule) -> None:
        """The rule was changed: what waits for destinations that it has no longer goes to those that it has.

        Those that have had it do not get it again; where all have, it only remains to finish it.
        """
        marks = ", ".join("?" * len(rule.places))
        columns = "destination, level, resource, epoch, change, origin, stamp"
        rows = changes.writer.execute(
            f"SELECT {columns} FROM entries WHERE rule = ? AND state = ? AND destination NOT IN ({marks})",  # noqa: S608
            (rule.name, EntryState.WAITING.value, *rule.places),
        ).fetchall()
        for destination in {row[0] for row in rows}:
            said = (
                f"the rule was changed: {destination or 'one destination'} is not where it sends to any more"
            )
            changes.drop_rule(rule.name, said, [destination], again=True)
        for _, level, identifier, epoch, change, origin, stamp in rows:
            resource = Resource(Level(level), identifier)
            for place in rule.places:
                if change is not None or not _was_sent(changes.writer, rule, place, resource, stamp):
                    self.add(
                        changes.writer, rule, resource, origin, Position(epoch, change), stamp, only=place
                    )
            if rule.after:
                changes.finish_again(rule, resource)

    # --- working it off

    @contextmanager
    def changing(self, *, synced: bool = True) -> Iterator[Changes]:
        """Changes of entries that are one transaction.

        How far an entry got need not be synced: after a power failure its report tells, or it is sent once more,
        which the receiver has.
        """
        with self._database.writing(synced=synced) as writer:
            yield Changes(writer, self._clock)

    def unchecked(self, limit: int, without: Collection[str] = ()) -> list[Entry]:
        """Entries whose filter was not asked yet, the oldest first; ``without`` those of some rules."""
        where = f"state = 'Waiting' AND checked = 0 AND {_not_of(without)} ORDER BY id LIMIT ?"
        return self._entries(where, (*without, limit), "unchecked")

    def due(self, rule: str, destination: str, limit: int) -> list[Entry]:
        """Entries of a rule, and of one of its destinations, that may be sent now, the oldest first."""
        return self._entries(
            "state = ? AND rule = ? AND destination = ? AND checked = 1 AND next_try <= ? ORDER BY id LIMIT ?",
            (EntryState.WAITING.value, rule, destination, self._database.now, limit),
            "due",
        )

    def unsent(self, rule: Rule, resource: Resource, stamp: str) -> tuple[str, ...]:
        """Those of its rule's places that did not get it as it was when it had last changed, and are not about to."""
        with self._database.reading() as reader:
            return tuple(
                place
                for place in rule.places
                if not _was_sent(reader, rule, place, resource, stamp, or_will_be=True)
            )

    def long_waiting(self, rule: str, seconds: float) -> list[Entry]:
        """Entries of a rule that have waited for longer than that, of which nobody was told."""
        return self._entries(
            "state IN (?, ?) AND rule = ? AND told = 0 AND queued_at < ? ORDER BY id LIMIT 100",
            (EntryState.WAITING.value, EntryState.RUNNING.value, rule, self._database.now - seconds),
        )

    def in_state(self, state: EntryState, limit: int = -1, without: Collection[str] = ()) -> list[Entry]:
        """All entries in a state, the oldest first; ``without`` those of some rules."""
        where = f"state = ? AND {_not_of(without)} ORDER BY id LIMIT ?"
        return self._entries(where, (state.value, *without, limit))

    def entry(self, identifier: int) -> Entry | None:
        """One entry."""
        found = self._entries("id = ?", (identifier,))
        return found[0] if found else None

    def siblings(self, entry: Entry) -> list[Entry]:
        """The last entry of each destination for the same resource and rule."""
        found = self._entries("rule = ? AND resource = ? ORDER BY id", (entry.rule, entry.resource.id))
        return list({one.destination: one for one in found}.values())

    def next_due(self) -> float | None:
        """The queue time at which the next entry that is not due yet will be."""
        with self._database.reading() as reader:
            (moment,) = reader.execute(
                "SELECT MIN(next_try) FROM entries WHERE state = ? AND next_try > ?",
                (EntryState.WAITING.value, self._database.now),
            ).fetchone()
        return None if moment is None else float(moment)

    # --- showing it

    def page(
        self, states: Sequence[EntryState], rule: str | None, limit: int, offset: int
    ) -> tuple[int, list[Entry]]:
        """How many there are, and some of them: those that are active the oldest first, ended ones the newest."""
        where = f"state IN ({', '.join('?' * len(states))})"
        values: list[Any] = [state.value for state in states]
        if rule is not None:
            where += " AND rule = ?"
            values.append(rule)
        order = "id" if all(state in ACTIVE for state in states) else "ended DESC, id DESC"
        with self._database.reading() as reader:
            (total,) = reader.execute(f"SELECT COUNT(*) FROM entries WHERE {where}", values).fetchone()  # noqa: S608
            rows = reader.execute(
                f"SELECT * FROM entries WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?",  # noqa: S608
                (*values, limit, offset),
            ).fetchall()
        return total, [_entry(row) for row in rows]

    def counts(self) -> dict[str, dict[str, int]]:
        """By rule and state."""
        with self._database.reading() as reader:
            rows = reader.execute("SELECT rule, state, COUNT(*) FROM entries GROUP BY rule, state").fetchall()
        found: dict[str, dict[str, int]] = {}
        for rule, state, count in rows:
            found.setdefault(rule, {})[state] = count
        return found

    def oldest(self) -> dict[str, float]:
        """By rule: for how long its oldest entry has waited, in seconds of queue time."""
        with self._database.reading() as reader:
            rows = reader.execute(
                "SELECT rule, MIN(queued_at) FROM entries WHERE state IN (?, ?, ?) GROUP BY rule", _ACTIVE
            ).fetchall()
        return {rule: max(0.0, self._database.now - since) for rule, since in rows}

    def totals(self) -> list[tuple[str, str, int, float, int]]:
        """By rule and peer: how many wait, the age of the oldest in seconds of queue time, how many failed.

        The peer is the destination, or where it was tried last; empty: nowhere yet.
        """
        with self._database.reading() as reader:
            rows = reader.execute(
                "SELECT rule, COALESCE(NULLIF(destination, ''), peer, '') AS tried, SUM(state IN (?, ?, ?)),"
                " MIN(CASE WHEN state IN (?, ?, ?) THEN queued_at END), SUM(state IN (?, ?))"
                " FROM entries GROUP BY rule, tried",
                (*_ACTIVE, *_ACTIVE, EntryState.FAILED.value, EntryState.GIVEN_UP.value),
            ).fetchall()
        now = self._database.now
        return [
            (rule, peer, waiting, 0.0 if since is None else max(0.0, now - since), failed)
            for rule, peer, waiting, since, failed in rows
        ]

    def rules(self) -> list[str]:
        """Names of rules that have entries which have not ended."""
        with self._database.reading() as reader:
            rows = reader.execute(
                "SELECT DISTINCT rule FROM entries WHERE state IN (?, ?, ?)", _ACTIVE
            ).fetchall()
        return [rule for (rule,) in rows]

    def _entries(self, where: str, values: Sequence[Any], index: str | None = None) -> list[Entry]:
        """``index``: the one to use, where SQLite would choose another and look at all that wait."""
        table = "entries" if index is None else f"entries INDEXED BY {index}"
        with self._database.reading() as reader:
            return [_entry(row) for row in reader.execute(f"SELECT * FROM {table} WHERE {where}", values)]  # noqa: S608


class Changes:
    """What changes in one transaction."""

    def __init__(self, writer: sqlite3.Connection, clock: Clock) -> None:
        self.writer = writer
        self._clock = clock

    def set(self, identifier: int, **values: Any) -> None:
        """Change columns of an entry."""
        assert values.keys() <= _COLUMNS
        names = ", ".join(f"{name} = ?" for name in values)
        self.writer.execute(f"UPDATE entries SET {names} WHERE id = ?", (*values.values(), identifier))  # noqa: S608

    def end(self, identifier: int, state: EntryState, said: str | None) -> None:
        """It has ended, and why."""
        self.set(identifier, state=state.value, said=said, ended=self._clock.now(), held=0)

    def ask_again(self, rule: str) -> None:
        """The filter of the rule is another one."""
        self.writer.execute(
            "UPDATE entries SET checked = 0 WHERE rule = ? AND state IN (?, ?)",
            (rule, EntryState.WAITING.value, EntryState.RUNNING.value),
        )

    def remove(self, identifiers: Iterable[int]) -> None:
        """Entries that leave no trace: what no filter took."""
        self.writer.executemany("DELETE FROM entries WHERE id = ?", ((one,) for one in identifiers))

    def drop_rule(
        self, rule: str, said: str, destinations: Iterable[str] = (), *, again: bool = False
    ) -> int:
        """Drop what waits of a rule, or what waits for some of its destinations; returns how many that were.

        ``again``: the same change may be queued for these destinations once more.
        """
        where, values = "rule = ? AND state = ?", [rule, EntryState.WAITING.value]
        wanted = list(destinations)
        if wanted:
            where += f" AND destination IN ({', '.join('?' * len(wanted))})"
        found = self.writer.execute(
            f"UPDATE entries SET state = ?, said = ?, ended = ?, change = IIF(?, NULL, change) WHERE {where}",  # noqa: S608
            (EntryState.DROPPED.value, said, self._clock.now(), again, *values, *wanted),
        )
        return found.rowcount

    def finish_again(self, rule: Rule, resource: Resource) -> None:
        """If no entry for it is active: let the last one that was sent be finished, as its rule is now."""
        marks = ", ".join("?" * len(rule.places))
        last = f"SELECT MAX(id) FROM entries WHERE rule = ? AND resource = ? AND state = ? AND destination IN ({marks})"  # noqa: S608
        self.writer.execute(
            f"UPDATE entries SET state = ?, ended = NULL WHERE id = ({last}) AND NOT EXISTS"  # noqa: S608
            " (SELECT 1 FROM entries WHERE rule = ? AND resource = ? AND state IN (?, ?, ?))",
            (
                *(EntryState.FINISHING.value, rule.name, resource.id, EntryState.DONE.value, *rule.places),
                *(rule.name, resource.id, *_ACTIVE),
            ),
        )

    def expire(self, before: float) -> None:
        """Forget what ended before that time (seconds since the epoch)."""
        self.writer.execute("DELETE FROM entries WHERE ended < ?", (before,))


def _not_of(rules: Collection[str]) -> str:
    return f"rule NOT IN ({', '.join('?' * len(rules))})"


def _was_sent(
    reader: sqlite3.Connection,
    rule: Rule,
    place: str,
    resource: Resource,
    stamp: str | None,
    *,
    or_will_be: bool = False,
) -> bool:
    """Whether it was sent there by the rule when it had last changed at that moment; to any place, if that is empty."""
    states = (EntryState.WAITING.value, EntryState.FINISHING.value) if or_will_be else ()
    wanted = f"state = ? AND stamp = ? OR state IN ({', '.join('?' * len(states))})"
    found = reader.execute(
        f"SELECT 1 FROM entries WHERE rule = ? AND resource = ? AND ? IN ('', destination) AND ({wanted}) LIMIT 1",  # noqa: S608
        (rule.name, resource.id, place, EntryState.DONE.value, stamp, *states),
    )
    return found.fetchone() is not None


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        id=row["id"],
        rule=row["rule"],
        destination=row["destination"],
        resource=Resource(Level(row["level"]), row["resource"]),
        origin=row["origin"],
        state=EntryState(row["state"]),
        checked=bool(row["checked"]),
        attempts=row["attempts"],
        refusals=row["refusals"],
        turn=row["turn"],
        peer=row["peer"],
        transfer=row["transfer"],
        job=row["job"],
        held=bool(row["held"]),
        first_try=row["first_try"],
        next_try=row["next_try"],
        queued=row["queued"],
        queued_at=row["queued_at"],
        ended=row["ended"],
        said=row["said"],
        stamp=row["stamp"],
    )
