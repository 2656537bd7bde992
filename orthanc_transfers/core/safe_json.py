"""Bounded JSON parsing, safe for text from any client or peer."""

from __future__ import annotations

import json
from typing import Any

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import BadFile, TooLarge

MAX_NESTING = 16
"""Maximum number of levels of arrays and objects; no message of ours has more than five."""

MAX_VALUES = 16_000_000
"""Maximum number of values in one text: five for each of more instances than any message names.

Each takes some 64 bytes.
"""

_BRACKETS = b"[]{}"
_ALL_ELSE = bytes(set(range(256)) - set(_BRACKETS))
# Brackets within strings are not told from others: so many may remain unmatched.
_MAX_UNMATCHED = 16


def parse_json(text: Buffer, max_values: int = MAX_VALUES) -> Any:
    """The value. Raises ``BadFile`` if the text is not JSON, or nested deeper than any message is.

    Raises ``TooLarge`` if there are more values in it: three bytes of text may become 64 of memory.
    """
    text = bytes(text)
    if text.count(b",") + text.count(b"[") + text.count(b"{") > max_values:
        raise TooLarge(f"the JSON holds more than {max_values} values")
    # Python's parser calls itself for each level: in a thread of Orthanc's HTTP server, whose stack is
    # 100 KB (tried), deep nesting would end the whole process before any exception is raised.
    brackets = text.translate(None, _ALL_ELSE)
    for _ in range(MAX_NESTING):
        if not brackets:
            break
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets.count(b"[") + brackets.count(b"{") > _MAX_UNMATCHED:
        raise BadFile("the JSON is nested too deep, or its brackets do not match")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"this is not JSON: {error}") from None
