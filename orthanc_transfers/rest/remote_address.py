"""The address from which a request comes, where the request tells it: the SDK does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address

# With the port that some proxies add: 192.0.2.1:4711, [2001:db8::1]:4711.
_WITH_PORT = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::[0-9]{1,5})?")

_MAX_LENGTH = 64


def remote_address(headers: Mapping[str, str]) -> str | None:
    """What the proxy in front of this Orthanc says (``X-Real-IP``, else the first of ``X-Forwarded-For``).

    ``None`` where there is none, or no address. Where no proxy sets them, a client may make them up: for people
    to see, not to decide by.
    """
    said = headers.get("x-real-ip") or headers.get("x-forwarded-for", "").partition(",")[0]
    text = said.strip()
    if not text or len(text) > _MAX_LENGTH:
        return None
    found = _WITH_PORT.fullmatch(text)
    try:
        return str(ip_address(text if found is None else found[1] or found[2]))
    except ValueError:
        return None
