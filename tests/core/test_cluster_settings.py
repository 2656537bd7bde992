"""The option ``Cluster``."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_transfers.core.cluster_settings import ClusterSettings
from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.settings import parse_settings, settings_to_json

URI = "postgresql://orthanc:s3cret@db/orthanc"


def test_there_is_no_cluster_unless_the_option_is_given() -> None:
    assert not parse_settings({}).cluster.enabled
    assert parse_settings({"Cluster": {}}).cluster == ClusterSettings(enabled=True)
    assert not parse_settings({"Cluster": {"Enabled": False}}).cluster.enabled


def test_the_password_is_not_shown() -> None:
    settings = parse_settings({"Cluster": {"ConnectionUri": URI}})
    assert settings.cluster.connection_uri == URI
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings_to_json(settings))


def test_a_slash_at_the_end_of_the_address_does_not_matter() -> None:
    assert parse_settings({"Cluster": {"Address": "http://n1:8042/"}}).cluster.address == "http://n1:8042"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (True, "object"),
        ({"Nodename": "x", "ConnectionUri": URI}, "Nodename"),
        ({"NodeName": 3, "ConnectionUri": URI}, "NodeName"),
        ({"NodeName": "../x", "ConnectionUri": URI}, "NodeName"),
        ({"NodeName": "node_1", "ConnectionUri": URI}, "NodeName"),
        ({"SharedStaging": 1, "ConnectionUri": URI}, "SharedStaging"),
        ({"Enabled": 1, "ConnectionUri": URI}, "Enabled"),
        ({"AdoptAfter": 0, "ConnectionUri": URI}, "AdoptAfter"),
        ({"AdoptAfter": "60", "ConnectionUri": URI}, "AdoptAfter"),
        ({"ConnectionUri": "mysql://orthanc:s3cret@db"}, "ConnectionUri"),
        ({"Address": "10.0.0.5", "ConnectionUri": URI}, "Address"),
        ({"Address": "http://[", "ConnectionUri": URI}, "Address"),
    ],
)
def test_a_bad_value_is_named_without_the_password(value: Any, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_settings({"Cluster": value})
    assert named in str(caught.value)
    assert "s3cret" not in str(caught.value)
