"""What ``GET /transfers/queue`` and its history are asked for: a rule, states and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.json_fields import url_arguments
from orthanc_transfers.core.rule_entry import EntryState
from orthanc_transfers.core.transfer_query import DEFAULT_LIMIT, MAX_LIMIT, MAX_OFFSET, parse_number

_KEYS = ("rule", "state", "limit", "offset")


@dataclass(frozen=True, slots=True)
class RuleQuery:
    """A page of entries."""

    states: Sequence[EntryState]
    rule: str | None
    limit: int
    offset: int

    @classmethod
    def parse(cls, query: Mapping[str, str], allowed: Sequence[EntryState]) -> RuleQuery:
        """From the arguments of the URL, still encoded. Raises ``BadRequest``, naming the argument."""
        query = url_arguments(query, _KEYS)
        states = {state.value: state for state in allowed}
        wanted = [name for name in query.get("state", "").split(",") if name]
        for name in wanted:
            if name not in states:
                raise BadRequest(f"state must be some of {', '.join(states)}, and is {name[:40]!r}")
        return cls(
            [states[name] for name in wanted] or list(allowed),
            query.get("rule") or None,
            parse_number(query, "limit", DEFAULT_LIMIT, 0, MAX_LIMIT),
            parse_number(query, "offset", 0, 0, MAX_OFFSET),
        )
