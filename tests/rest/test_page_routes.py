"""The page: its files as they are served, and its texts in all languages."""

from __future__ import annotations

import json
import re

import pytest

from orthanc_transfers.core.errors import NotFound
from orthanc_transfers.explorer import page_files
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.rest.http import Request
from orthanc_transfers.rest.page_routes import PageRoutes
from tests.support.page_build import BUILT, SOURCES, sources_hash


@pytest.fixture
def routes() -> PageRoutes:
    # What serves files asks for no service.
    return PageRoutes(page_files(), object.__new__(Services), peers_in_database=False)


def get(path: str, name: str | None = None, **headers: str) -> Request:
    return Request("GET", path, () if name is None else (name,), headers=headers)


def test_the_build_was_not_forgotten_after_a_change_of_the_sources() -> None:
    assert (BUILT / "sources.sha256").read_text().strip() == sources_hash(), (
        "run `npm ci && npm run build` in orthanc_transfers/explorer/app_src"
    )


def test_the_first_file_is_asked_for_again_each_time_and_the_others_never(routes: PageRoutes) -> None:
    index = routes.file(get("/transfers/app"))
    assert index.headers["Cache-Control"] == "no-cache"
    names = re.findall(r'(?:src|href)="\./assets/([^"]+)"', bytes(index.body).decode())
    assert {name.rpartition(".")[2] for name in names} == {"js", "css", "svg"}
    for name in names:
        file = routes.file(get(f"/transfers/app/assets/{name}", name))
        assert "immutable" in file.headers["Cache-Control"]
        assert file.body


def test_what_the_browser_has_already_is_not_sent_again(routes: PageRoutes) -> None:
    tag = routes.file(get("/transfers/app")).headers["ETag"]
    answer = routes.file(get("/transfers/app", **{"if-none-match": f'"other", W/{tag}'}))
    assert (answer.status, bytes(answer.body)) == (304, b"")
    assert routes.file(get("/transfers/app", **{"if-none-match": '"other"'})).status == 200


def test_every_file_comes_with_the_policy_that_allows_nothing_from_elsewhere(routes: PageRoutes) -> None:
    policy = routes.file(get("/transfers/app")).headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("name", ["none.js", "..", "../index.html", "x" * 10_000, "<script>"])
def test_no_other_file_is_served(routes: PageRoutes, name: str) -> None:
    with pytest.raises(NotFound, match="load /transfers/app/ again"):
        routes.file(get("/transfers/app/assets/x", name))


def test_every_language_has_every_text_with_the_same_values_in_it() -> None:
    def texts(language: str) -> dict[str, set[str]]:
        found = json.loads((SOURCES / "src" / "locales" / f"{language}.json").read_text())
        assert all(found.values())
        return {key: set(re.findall(r"\{\w+\}", text)) for key, text in found.items()}

    english = texts("en")
    assert texts("fr") == english
    assert texts("de") == english


def test_every_text_that_the_page_names_is_there() -> None:
    known = json.loads((SOURCES / "src" / "locales" / "en.json").read_text())
    sources = "".join(
        one.read_text() for one in (SOURCES / "src").rglob("*") if one.suffix in (".vue", ".ts")
    )
    named = set(re.findall(r"\bt\('([\w.]+)'", sources))
    assert named
    assert named - known.keys() == set()


def test_the_lock_file_names_no_host() -> None:
    assert "://" not in re.sub(r'"url": "https://[^"]*"', "", (SOURCES / "package-lock.json").read_text()), (
        "see .npmrc: omit-lockfile-registry-resolved"
    )
