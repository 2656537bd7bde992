"""What waits follows the rules as they are now: after a start of Orthanc, and after each change of a rule."""

from __future__ import annotations

from typing import Any

from orthanc_transfers.core.rule import Rule
from orthanc_transfers.rules.book import RuleBook
from orthanc_transfers.rules.database import RuleDatabase, put_fact
from orthanc_transfers.rules.queue import Queue

_TAKEN = "TakenAs"
"""As what the rules took what waits: their keys below, by the names of rules."""

_KEYS = ("Filter", "Anonymize", "Modify", "Transcode")
"""What is asked again, and begun anew, where one of these is another."""


def follow_rules(book: RuleBook, queue: Queue, database: RuleDatabase) -> None:
    """In one transaction. Raises ``sqlite3.Error``, ``OSError``.

    What a deleted rule has waiting is dropped; where one sends elsewhere it is moved; where it takes, or sends,
    something else than before, its filter is asked again. What a rule has waiting that cannot be read stays as it is.
    """
    names = {one.name for one in book.all()}
    before = database.fact(_TAKEN) or {}
    now = {one.name: _taken(one.rule) for one in book.all() if one.rule is not None}
    with queue.changing() as changes:
        for name in queue.rules():
            rule = book.rule(name)
            if name not in names:
                changes.drop_rule(name, "its rule was deleted")
            elif rule is not None:
                queue.follow(changes, rule)
                if name in before and before[name] != now.get(name):
                    changes.ask_again(name)
        kept = {name: one for name, one in before.items() if name in names}
        put_fact(changes.writer, _TAKEN, {**kept, **now})


def _taken(rule: Rule) -> dict[str, Any]:
    return {"Filter": {}, **{key: rule.body[key] for key in _KEYS if key in rule.body}}
