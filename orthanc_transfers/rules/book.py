"""The rules in force: those of the configuration, and what was changed of them at run time, which is kept.

The configuration is the base. A rule that is set at run time takes the place of the configured one of its name, or is
one more; a configured one that is deleted at run time stays away. Once the configuration of a rule changes, it is
newer, and counts again.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.errors import BadRequest, Conflict, NotFound
from orthanc_transfers.core.rule import Rule, name_of
from orthanc_transfers.core.webhook import Notify, keep_secrets
from orthanc_transfers.rules.database import RuleDatabase

MAX_RULES = 500

CONFIGURATION, RUN_TIME = "Configuration", "RunTime"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownRule:
    """A rule, or what should be one."""

    name: str
    body: Any
    source: str
    rule: Rule | None
    """``None`` if it cannot work."""
    problem: str | None = None
    """Why it cannot."""
    since: int = 0
    """Orthanc's changes up to this one do not concern it."""
    fired: float = 0.0
    """Seconds since the epoch: times up to this one are dealt with."""


class RuleBook:
    """Thread-safe. ``configured`` is the option ``Rules``."""

    def __init__(self, configured: Sequence[Any], database: RuleDatabase, now: Callable[[], float]) -> None:
        self._configured = _named(configured)
        self._database = database
        self._now = now
        self._lock = threading.Lock()
        self._rules: dict[str, KnownRule] = {}

    @property
    def has_configured(self) -> bool:
        """Whether the configuration has any."""
        return bool(self._configured)

    def all(self) -> list[KnownRule]:
        """In the order of the configuration, then as they were added."""
        return list(self._rules.values())

    def working(self) -> list[Rule]:
        """Those that work and are enabled; the highest priority first."""
        found = [one.rule for one in self.all() if one.rule is not None and one.rule.enabled]
        return sorted(found, key=lambda rule: -rule.priority)

    def known(self, name: str) -> KnownRule:
        """Raises ``NotFound``."""
        found = self._rules.get(name)
        if found is None:
            raise NotFound(f"there is no rule {name[:100]!r}")
        return found

    def rule(self, name: str) -> Rule | None:
        """A rule that works, whether it is enabled or not."""
        found = self._rules.get(name)
        return None if found is None else found.rule

    def unreadable(self) -> frozenset[str]:
        """Names of those that cannot work until they are mended: what they began waits for that."""
        return frozenset(one.name for one in self.all() if one.rule is None)

    def resting(self) -> frozenset[str]:
        """Names of those that do nothing now: disabled, or unreadable."""
        return frozenset(one.name for one in self.all() if one.rule is None or not one.rule.enabled)

    def notify(self, name: str) -> Notify | None:
        """Where events of a rule are told; ``None``: nowhere."""
        rule = self.rule(name)
        return None if rule is None else rule.notify

    # --- loading

    def load(self, last_change: int) -> None:
        """Merge the configuration with what was set at run time. Raises ``sqlite3.Error``, ``OSError``.

        A rule that was not known before concerns what changes after ``last_change``.
        """
        with self._lock, self._database.writing() as writer:
            rows = {row[0]: row[1:] for row in writer.execute(_ROWS)}
            for name, body in self._configured.items():
                since, fired, set_body, deleted, then = rows.pop(name, (None, None, None, 0, None))
                overridden = set_body is not None or deleted
                if overridden and then == _text(body):
                    if set_body is not None:
                        self._keep(name, json.loads(set_body), RUN_TIME, since, fired)
                    continue
                if overridden:
                    log.warning(
                        "rule %s was changed at run time, which is dropped: the configuration changed", name
                    )
                self._keep(name, body, CONFIGURATION, since, fired, last_change)
                self._write(writer, name, None, deleted=False)
            for name, (since, fired, set_body, _, _) in rows.items():
                if set_body is None:
                    # It is not configured any more.
                    writer.execute("DELETE FROM rules WHERE name = ?", (name,))
                else:
                    self._keep(name, json.loads(set_body), RUN_TIME, since, fired)

    def begin_anew(self) -> None:
        """Orthanc's list of changes has begun anew. Raises ``sqlite3.Error``, ``OSError``."""
        with self._lock, self._database.writing() as writer:
            writer.execute("UPDATE rules SET since = 0")
            self._rules = {name: _with(one, since=0) for name, one in self._rules.items()}

    # --- changes at run time

    def put(self, body: Any, last_change: int, *, new: bool = False) -> Rule:
        """Set a rule; ``new``: only if there is none of its name.

        Raises ``BadRequest``, ``Conflict``, ``sqlite3.Error``, ``OSError``.
        """
        name = name_of(body)
        known = None if name is None else self._rules.get(name)
        if isinstance(body, dict) and known is not None:
            body = keep_secrets(body, known.body if isinstance(known.body, dict) else None)
        rule = Rule.parse(body)
        with self._lock:
            before = self._rules.get(rule.name)
            if new and before is not None:
                raise Conflict(f"there is a rule {rule.name} already: PUT changes it")
            if before is None and len(self._rules) >= MAX_RULES:
                raise BadRequest(f"there may be {MAX_RULES} rules at most")
            since, fired = (None, None) if before is None else (before.since, before.fired)
            if before is not None and before.rule is not None and before.rule.time != rule.time:
                fired = None
            with self._database.writing() as writer:
                self._keep(rule.name, body, RUN_TIME, since, fired, last_change)
                try:
                    self._write(writer, rule.name, body, deleted=False)
                except sqlite3.Error:
                    self._restore(rule.name, before)
                    raise
        log.warning("rule %s was %s at run time", rule.name, "added" if before is None else "changed")
        return rule

    def delete(self, name: str) -> None:
        """Delete a rule. Raises ``NotFound``, ``sqlite3.Error``, ``OSError``."""
        with self._lock:
            self.known(name)
            with self._database.writing() as writer:
                if name in self._configured:
                    self._write(writer, name, None, deleted=True)
                else:
                    writer.execute("DELETE FROM rules WHERE name = ?", (name,))
            del self._rules[name]
        log.warning("rule %s was deleted at run time", name)

    def fire(self, writer: sqlite3.Connection, name: str, moment: float) -> None:
        """Times of a rule up to that one are dealt with."""
        writer.execute("UPDATE rules SET fired = ? WHERE name = ?", (moment, name))
        found = self._rules.get(name)
        if found is not None:
            self._rules[name] = _with(found, fired=moment)

    # --- within

    def _keep(
        self,
        name: str,
        body: Any,
        source: str,
        since: int | None,
        fired: float | None,
        last_change: int = 0,
    ) -> None:
        rule, problem = None, None
        try:
            rule = Rule.parse(body)
            if rule.name != name:
                raise BadRequest(f"there is a rule {rule.name} already: give each another name")
        except BadRequest as error:
            rule, problem = None, str(error)
            log.error("rule %s cannot work, the others do: %s", name, problem)
        self._rules[name] = KnownRule(
            name,
            body,
            source,
            rule,
            problem,
            last_change if since is None else since,
            self._now() if fired is None else fired,
        )

    def _restore(self, name: str, before: KnownRule | None) -> None:
        if before is None:
            self._rules.pop(name, None)
        else:
            self._rules[name] = before

    def _write(self, writer: sqlite3.Connection, name: str, body: Any, *, deleted: bool) -> None:
        known = self._rules.get(name)
        configured = self._configured.get(name)
        writer.execute(
            "INSERT OR REPLACE INTO rules (name, since, fired, body, deleted, configured) VALUES (?, ?, ?, ?, ?, ?)",
            (
                name,
                None if known is None else known.since,
                None if known is None else known.fired,
                None if body is None else _text(body),
                int(deleted),
                None if configured is None else _text(configured),
            ),
        )


_ROWS = "SELECT name, since, fired, body, deleted, configured FROM rules ORDER BY rowid"


def _named(configured: Sequence[Any]) -> dict[str, Any]:
    """By name; what has none, or that of another one, gets one that no rule can have."""
    found: dict[str, Any] = {}
    for number, body in enumerate(configured, 1):
        name = name_of(body)
        found[f"#{number}" if name is None or name in found else name] = body
    return found


def _with(one: KnownRule, *, since: int | None = None, fired: float | None = None) -> KnownRule:
    return KnownRule(
        one.name,
        one.body,
        one.source,
        one.rule,
        one.problem,
        one.since if since is None else since,
        one.fired if fired is None else fired,
    )


def _text(body: Any) -> str:
    return json.dumps(body, sort_keys=True)
