"""Posts one notification to a server that is no peer: proxies and certificates by the rules of ``requests``."""

from __future__ import annotations

from collections.abc import Mapping

import requests
from requests.utils import get_auth_from_url

from orthanc_transfers.net.error_text import FOREIGN, reason_of

CONNECT_TIMEOUT = 10.0
"""Seconds."""

TIMEOUT = 15.0
"""Seconds for each wait for an answer."""


def post(url: str, headers: Mapping[str, str], body: bytes, verify: bool | str = True) -> str | None:
    """``None`` if the server took it (2xx), else why not, without the address. Redirections are not followed.

    ``verify`` as of ``RequestsTransport``.
    """
    with requests.Session() as session:
        # The environment says which proxy; no password of ~/.netrc goes anywhere.
        user, password = get_auth_from_url(url)
        if user or password:
            session.auth = (user, password)
        else:
            session.auth = _no_password
        session.verify = verify
        try:
            # The answer is not read: its status tells all, and it may have no end.
            with session.post(
                url,
                data=body,
                headers=dict(headers),
                timeout=(CONNECT_TIMEOUT, TIMEOUT),
                allow_redirects=False,
                stream=True,
            ) as answer:
                status = answer.status_code
        except FOREIGN as error:
            return reason_of(error, TIMEOUT)[0]
        except ValueError:
            return "its address, or that of the proxy, cannot be used"
    return None if 200 <= status < 300 else f"it answered with status {status}"


def _no_password(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
