"""Strict parsers of JSON fields, for the messages of both versions.

Each raises ``BadFile`` or ``BadRequest`` (both 400) with a sentence that names the key.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_plus

from orthanc_transfers.core.codec import Compression
from orthanc_transfers.core.errors import BadFile, BadRequest
from orthanc_transfers.core.model import Instance

MAX_SIZE = 2**63 - 1
"""Bytes; the largest size and offset that a message may hold."""

MAX_NAME = 64
"""Characters of a name that a peer gives itself."""

_COMPRESSIONS = {compression.value: compression for compression in Compression}

# Digits of MAX_SIZE; what has more is not even converted.
_MAX_DIGITS = 19


def shown(value: Any) -> str:
    """A value for an error message; cut before anything deep or long is formatted."""
    match value:
        case dict():
            return "an object"
        case list():
            return f"an array of {len(value)}"
        case str():
            return repr(value if len(value) <= 60 else f"{value[:60]}…")
        case int() if not isinstance(value, bool) and abs(value) > MAX_SIZE:
            return "beyond 2^63"
    return json.dumps(value)


def json_object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadFile(f"{name} must be a JSON object, and is {shown(value)}")
    return value


def known_keys(body: Mapping[str, Any], keys: Iterable[str], name: str) -> None:
    """Raises ``BadRequest`` for a key that is none of ``keys``, with what may have been meant."""
    keys = list(keys)
    for key in body:
        if key not in keys:
            alike = difflib.get_close_matches(key, keys, 1)
            hint = f'did you mean "{alike[0]}"?' if alike else f"it may have {', '.join(keys)}"
            raise BadRequest(f"{name} has the unknown key {shown(key)}: {hint}")


def url_arguments(query: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The arguments of a URL, decoded: Orthanc gives them to a plugin still encoded (tried on 1.10.1 and 1.13.0).

    Raises ``BadRequest`` for one that is none of ``names``.
    """
    names = list(names)
    for name in query:
        if name not in names:
            raise BadRequest(f"{name[:40]!r} is not an argument of this request: it takes {', '.join(names)}")
    return {name: unquote_plus(value, errors="replace") for name, value in query.items()}


def json_array(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadFile(f"{name} must be a JSON array, and is {shown(value)}")
    return value


def array_field(body: Mapping[str, Any], key: str) -> list[Any]:
    return json_array(required_field(body, key), f'"{key}"')


def required_field(body: Mapping[str, Any], key: str) -> Any:
    try:
        return body[key]
    except KeyError:
        raise BadFile(f'"{key}" is missing') from None


def string_field(body: Mapping[str, Any], key: str) -> str:
    value = required_field(body, key)
    if not isinstance(value, str):
        raise BadFile(f'"{key}" must be a string, and is {shown(value)}')
    if not is_text(value):
        raise BadFile(f'"{key}" is not text: {shown(value)}')
    return value


def is_text(value: str) -> bool:
    """Whether it has no half of a pair of UTF-16, which JSON can write, but no path, header or log."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def natural_number(value: Any, name: str) -> int:
    if type(value) is not int:
        raise BadFile(f"{name} must be an integer, and is {shown(value)}")
    if not 0 <= value <= MAX_SIZE:
        raise BadRequest(f"{name} must be from 0 to 2^63 - 1, and is {shown(value)}")
    return value


def decimal_string(value: Any, key: str) -> int:
    if isinstance(value, str) and len(value) <= _MAX_DIGITS and value.isascii() and value.isdigit():
        number = int(value)
        if number <= MAX_SIZE:
            return number
    raise BadFile(f'"{key}" must be a string of decimal digits, below 2^63, and is {shown(value)}')


def flag_field(body: Mapping[str, Any], key: str) -> bool:
    """``False`` if it is absent."""
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise BadFile(f'"{key}" must be true or false, and is {shown(value)}')
    return value


def string_items(body: Mapping[str, Any], key: str) -> list[str]:
    """An array of strings; empty if it is absent."""
    items = json_array(body.get(key, []), f'"{key}"')
    if not all(isinstance(item, str) for item in items):
        raise BadFile(f'"{key}" must be an array of strings')
    return items


def path_field(body: Mapping[str, Any]) -> str:
    value = string_field(body, "Path")
    # It travels in the first line of a request, and is saved with the job.
    if not re.fullmatch("[!-~]{0,1000}", value):
        raise BadFile(f'"Path" must be printable ASCII without spaces, and is {shown(value)}')
    return value


def compression_field(body: Mapping[str, Any]) -> Compression:
    if "Compression" not in body:
        return Compression.AUTO
    value = string_field(body, "Compression")
    if value not in _COMPRESSIONS:
        raise BadRequest(f'"Compression" must be one of {", ".join(_COMPRESSIONS)}, and is {shown(value)}')
    return _COMPRESSIONS[value]


def instances_field(body: Mapping[str, Any]) -> tuple[Instance, ...]:
    """Each identifier once, with what is said of it last."""
    found: dict[str, Instance] = {}
    for item in array_field(body, "Instances"):
        instance = json_object(item, 'each of "Instances"')
        identifier = string_field(instance, "ID")
        size = decimal_string(required_field(instance, "Size"), "Size")
        found[identifier] = Instance(identifier, size, string_field(instance, "MD5").lower())
    if sum(instance.size for instance in found.values()) > MAX_SIZE:
        raise BadRequest('the sizes of "Instances" must be below 2^63 together')
    return tuple(found.values())


def more_field(body: Mapping[str, Any]) -> int:
    return natural_number(body.get("More", 0), '"More"')


def name_field(body: Mapping[str, Any], key: str) -> str | None:
    """A name that a peer gives itself, to be shown to people: one line of ``MAX_NAME`` characters at most."""
    if key not in body:
        return None
    printable = "".join(filter(str.isprintable, string_field(body, key)[:MAX_NAME]))
    return printable.strip() or None


def patients_field(body: Mapping[str, Any]) -> frozenset[str] | None:
    """Identifiers of patients; ``None`` where they are not told."""
    if "Patients" not in body:
        return None
    identifiers = array_field(body, "Patients")
    if not all(isinstance(identifier, str) for identifier in identifiers):
        raise BadFile('"Patients" must be an array of strings')
    return frozenset(identifiers)


def instances_to_json(instances: Iterable[Instance]) -> list[dict[str, str]]:
    return [{"ID": instance.id, "Size": str(instance.size), "MD5": instance.md5} for instance in instances]
