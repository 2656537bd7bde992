"""The address that a proxy in front of Orthanc tells of."""

from __future__ import annotations

import pytest

from orthanc_transfers.rest.remote_address import remote_address


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({}, None),
        ({"x-real-ip": "192.0.2.1"}, "192.0.2.1"),
        ({"x-forwarded-for": "192.0.2.1, 198.51.100.7"}, "192.0.2.1"),
        ({"x-real-ip": "192.0.2.1", "x-forwarded-for": "192.0.2.9"}, "192.0.2.1"),
        ({"x-forwarded-for": "192.0.2.1:4711"}, "192.0.2.1"),
        ({"x-forwarded-for": "[2001:db8::1]:4711"}, "2001:db8::1"),
        ({"x-forwarded-for": "2001:DB8::1"}, "2001:db8::1"),
        ({"x-forwarded-for": "unknown"}, None),
        ({"x-forwarded-for": "<script>"}, None),
        ({"x-real-ip": "1" * 100_000}, None),
        ({"x-forwarded-for": ":" * 64}, None),
        ({"x-forwarded-for": "[]:80"}, None),
    ],
)
def test_it_is_an_address_or_nothing(headers: dict[str, str], address: str | None) -> None:
    assert remote_address(headers) == address
