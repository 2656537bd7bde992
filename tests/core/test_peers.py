"""The section "OrthancPeers"."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.peers import Peer, join, parse_peers, without_credentials
from tests.core.any_json import TEXT, any_json

SECRETS = {
    "Url": "https://alice:hunter1@hospital.example/orthanc/",
    "Username": "bob",
    "Password": "hunter2",
    "HttpHeaders": {"Authorization": "Bearer hunter3"},
    "CertificateKeyPassword": "hunter4",
    "Token": "hunter5",
}


def peer(value: Any) -> Peer:
    return parse_peers({"hospital": value})["hospital"]


def complaint(value: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_peers({"hospital": value})
    return str(caught.value)


def test_an_array_may_hold_the_address_alone() -> None:
    assert peer(["http://localhost:8042/"]) == Peer("hospital", "http://localhost:8042/")


def test_an_array_may_hold_a_login() -> None:
    found = peer(["http://localhost:8042", "alice", "secret"])
    assert (found.url, found.username, found.password) == ("http://localhost:8042", "alice", "secret")


def test_a_password_of_digits_may_stand_as_a_number() -> None:
    assert peer(["http://localhost", "alice", 1234]).password == "1234"


def test_an_object_may_hold_everything() -> None:
    found = peer(
        {
            "Url": "https://hospital.example/",
            "Username": "alice",
            "Password": "secret",
            "HttpHeaders": {"X-Key": "value"},
            "CertificateFile": "client.crt",
            "CertificateKeyFile": "client.key",
            "CertificateKeyPassword": "open sesame",
            "Pkcs11": True,
            "Timeout": 42,
            "RemoteSelf": "me",
        }
    )
    assert found == Peer(
        name="hospital",
        url="https://hospital.example/",
        username="alice",
        password="secret",
        headers={"X-Key": "value"},
        timeout=42,
        certificate_file="client.crt",
        certificate_key_file="client.key",
        certificate_key_password="open sesame",
        pkcs11=True,
        properties={"RemoteSelf": "me"},
    )


def test_url_in_capitals_is_taken_too_but_url_comes_first() -> None:
    assert peer({"URL": "http://a"}).url == "http://a"
    assert peer({"URL": "http://a", "Url": "http://b"}).url == "http://b"


def test_a_time_out_of_zero_means_the_one_of_orthanc() -> None:
    assert peer({"Url": "http://a", "Timeout": 0}).timeout is None


def test_an_address_without_a_scheme_is_http_as_orthanc_takes_it() -> None:
    assert peer(["localhost:8042"]).url == "http://localhost:8042"


@pytest.mark.parametrize(("value", "text"), [(5, "5"), (None, ""), (True, "true"), (False, "false")])
def test_a_user_or_a_password_in_an_array_is_text_as_orthanc_takes_it(value: Any, text: str) -> None:
    assert peer(["http://a", value, "secret"]).username == text
    assert peer(["http://a", "user", value]).password == text


@pytest.mark.parametrize(("value", "text"), [("", ""), ("me", "me"), (True, "1"), (False, "0"), (-5, "-5")])
def test_free_properties_are_text_as_orthanc_shows_them(value: Any, text: str) -> None:
    assert peer({"Url": "http://a", "RemoteSelf": value}).properties == {"RemoteSelf": text}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://a", "array or an object"),
        (None, "array or an object"),
        ([], "[url]"),
        (["http://a", "user"], "[url, user, password]"),
        (["http://a", "user", 1.5], "user or password"),
        (["http://a", ["user"], "password"], "user or password"),
        ([5], '"Url"'),
        (["ftp://a"], "http://"),
        (["HTTP://a"], "http://"),
        (["http://"], "http://"),
        (["http:///path"], "http://"),
        ([""], "http://"),
        ({"Username": "alice"}, '"Url"'),
        ({"Url": None}, '"Url"'),
        ({"Url": "http://a", "Username": 5}, '"Username"'),
        ({"Url": "http://a", "Password": None}, '"Password"'),
        ({"Url": "http://a", "HttpHeaders": ["a"]}, '"HttpHeaders"'),
        ({"Url": "http://a", "HttpHeaders": {"a": 5}}, '"HttpHeaders"'),
        ({"Url": "http://a", "Timeout": -1}, '"Timeout"'),
        ({"Url": "http://a", "Timeout": "5"}, '"Timeout"'),
        ({"Url": "http://a", "Timeout": True}, '"Timeout"'),
        ({"Url": "http://a", "Pkcs11": 1}, '"Pkcs11"'),
        ({"Url": "http://a", "CertificateFile": 5}, '"CertificateFile"'),
        ({"Url": "http://a", "RemoteSelf": None}, '"RemoteSelf"'),
        ({"Url": "http://a", "RemoteSelf": 1.5}, '"RemoteSelf"'),
        ({"Url": "http://a", "RemoteSelf": {}}, '"RemoteSelf"'),
    ],
)
def test_what_orthanc_does_not_take_is_refused_by_name(value: Any, expected: str) -> None:
    text = complaint(value)
    assert 'peer "hospital"' in text
    assert expected in text


def test_all_bad_peers_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_peers({"one": [], "two": ["http://a"], "three": 5})
    assert '"one"' in str(caught.value)
    assert '"three"' in str(caught.value)
    assert '"two"' not in str(caught.value)


@pytest.mark.parametrize("section", [None, [], "a", 5])
def test_a_section_that_is_no_object_is_refused(section: Any) -> None:
    with pytest.raises(ConfigurationError, match='"OrthancPeers" must be an object'):
        parse_peers(section)


def test_no_secret_is_ever_shown() -> None:
    shown = repr(peer(SECRETS)) + str(peer(SECRETS)) + repr(parse_peers({"hospital": SECRETS}))
    assert "hunter" not in shown
    assert "hospital.example" in shown


def test_no_secret_is_shown_in_a_complaint() -> None:
    assert "hunter" not in complaint({**SECRETS, "Timeout": "x"})
    assert "hunter" not in complaint({**SECRETS, "Url": "ftp://alice:hunter1@a"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a:80/b?c", "http://a:80/b?c"),
        ("https://user:pass@a/", "https://a/"),
        ("https://user:p@ss@a/", "https://a/"),
        ("http://a/x@y", "http://a/x@y"),
    ],
)
def test_credentials_are_taken_out_of_an_address(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@pytest.mark.parametrize("url", ["http://a:8042", "http://a:8042/", "http://a:8042//"])
@pytest.mark.parametrize("path", ["plugins", "/plugins", "//plugins"])
def test_one_slash_joins_an_address_and_a_path(url: str, path: str) -> None:
    assert join(url, path) == "http://a:8042/plugins"


def test_a_path_cannot_change_the_host() -> None:
    assert join("http://hospital", "@evil.example/").startswith("http://hospital/")


WORDS = TEXT | st.sampled_from(["http://a", "Url", "Timeout", "HttpHeaders"])


@given(st.dictionaries(TEXT, any_json(texts=WORDS), max_size=3))
def test_any_json_gives_peers_or_a_complaint(section: dict[str, Any]) -> None:
    try:
        peers = parse_peers(section)
    except ConfigurationError:
        return
    assert all(name == found.name and found.url for name, found in peers.items())
