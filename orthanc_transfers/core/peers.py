"""Parses the section ``OrthancPeers`` of Orthanc's configuration into ``Peer``. Secrets are never shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from orthanc_transfers.core.errors import ConfigurationError

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, repr=False)
class Peer:
    """How to reach another Orthanc, as the configuration says.

    ``url`` is the root of its REST API, with or without a final slash. Basic authentication is meant only
    if ``username`` and ``password`` are both non-empty. ``timeout`` is in seconds, ``None`` for Orthanc's
    ``HttpTimeout``. Certificates are paths of files, empty if there are none. ``properties`` are the free
    ones, as text. Neither ``repr`` nor ``str`` shows a secret.
    """

    name: str
    url: str
    username: str = ""
    password: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    timeout: int | None = None
    certificate_file: str = ""
    certificate_key_file: str = ""
    certificate_key_password: str = ""
    pkcs11: bool = False
    properties: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def __repr__(self) -> str:
        return (
            f"Peer(name={self.name!r}, url={without_credentials(self.url)!r}, username={self.username!r}, "
            f"headers={sorted(self.headers)}, timeout={self.timeout!r}, pkcs11={self.pkcs11!r}, "
            f"properties={sorted(self.properties)})"
        )


def parse_peers(section: Any) -> dict[str, Peer]:
    """All peers by their names.

    A peer is ``[url]``, ``[url, user, password]`` or an object, in which ``URL`` is taken for ``Url``.
    Raises ``ConfigurationError``, whose text names every peer that cannot be used, but no secret.
    """
    if not isinstance(section, Mapping):
        raise ConfigurationError('"OrthancPeers" must be an object with the peers by their names')
    peers: dict[str, Peer] = {}
    complaints: list[str] = []
    for name, value in section.items():
        try:
            peers[name] = _parse_peer(name, value)
        except _Unusable as error:
            complaints.append(f'peer "{name}": {error}')
    if complaints:
        raise ConfigurationError('in the section "OrthancPeers", ' + "; ".join(complaints))
    return peers


def join(url: str, path: str) -> str:
    """A URL below a peer's root, with one slash in between however the two are written."""
    return url.rstrip("/") + "/" + path.lstrip("/")


def without_credentials(url: str) -> str:
    """A URL without the ``user:password@`` that it may hold."""
    return re.sub(r"^([a-zA-Z]+://)[^/?#]*@", r"\1", url)


class _Unusable(Exception):
    """Says what is wrong with a peer, without its values, which may be secret."""


_TEXTS = {
    "Username": "username",
    "Password": "password",
    "CertificateFile": "certificate_file",
    "CertificateKeyFile": "certificate_key_file",
    "CertificateKeyPassword": "certificate_key_password",
}
"""Key of the configuration -> field of ``Peer``, for those that are plain strings."""

_RESERVED = {"Url", "URL", "HttpHeaders", "Timeout", "Pkcs11", *_TEXTS}


def _parse_peer(name: str, value: Any) -> Peer:
    if isinstance(value, list):
        return _parse_array(name, value)
    if isinstance(value, Mapping):
        return _parse_object(name, value)
    raise _Unusable("it must be an array or an object")


def _parse_array(name: str, value: list[Any]) -> Peer:
    if len(value) not in (1, 3):
        raise _Unusable("its array must be [url] or [url, user, password]")
    username, password = (_as_login(item) for item in value[1:] or ("", ""))
    return Peer(name, _url(value[0]), username=username, password=password)


def _as_login(value: Any) -> str:
    # A password of digits only may stand there as a number: as Orthanc takes it (tried on 1.10.1), which makes
    # another text of a boolean than among the properties.
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
    return _as_text(value, "the user or password")


def _parse_object(name: str, value: Mapping[str, Any]) -> Peer:
    url = value.get("Url", value.get("URL"))
    texts = {field: value.get(key, "") for key, field in _TEXTS.items()}
    for key, field_name in _TEXTS.items():
        if not isinstance(texts[field_name], str):
            raise _Unusable(f'"{key}" must be a string')
    headers = value.get("HttpHeaders", {})
    if not isinstance(headers, Mapping) or not all(isinstance(item, str) for item in headers.values()):
        raise _Unusable('"HttpHeaders" must be an object of strings')
    timeout = value.get("Timeout", 0)
    if type(timeout) is not int or timeout < 0:
        raise _Unusable('"Timeout" must be a whole number of seconds')
    pkcs11 = value.get("Pkcs11", False)
    if not isinstance(pkcs11, bool):
        raise _Unusable('"Pkcs11" must be true or false')
    return Peer(
        name,
        _url(url),
        headers=MappingProxyType(dict(headers)),
        timeout=timeout or None,
        pkcs11=pkcs11,
        properties=MappingProxyType(
            {key: _as_text(item, f'"{key}"') for key, item in value.items() if key not in _RESERVED}
        ),
        **texts,
    )


def _url(value: Any) -> str:
    if isinstance(value, str):
        scheme, separator, rest = value.partition("://")
        # As Orthanc, which accepts URLs without a scheme too (tried on 1.10.1).
        if not separator:
            scheme, rest = "http", value
        if scheme in ("http", "https") and rest and not rest.startswith("/"):
            return f"{scheme}://{rest}"
    raise _Unusable('its "Url" must begin with http:// or https://')


def _as_text(value: Any, key: str) -> str:
    # As Orthanc does it (tried on 1.10.1).
    match value:
        case str():
            return value
        case bool():
            return "1" if value else "0"
        case int():
            return str(value)
    raise _Unusable(f"{key} must be a string, a boolean or an integer")
