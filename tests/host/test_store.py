"""Orthanc as a store of DICOM files."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from typing import Any

import pydicom
import pytest

from orthanc_transfers.core.orthanc_version import UIDS_ARE_QUICK, at_least
from tests.host.conftest import with_script
from tests.support import dicom_data
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import StatusError
from tests.support.orthanc_server import OrthancServer

pytestmark = pytest.mark.orthanc

MakeHost = Callable[..., OrthancServer]
Stored = list[dict[str, Any]]

ABSENT = "00000000-11111111-22222222-33333333-44444444"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Two studies, the first of two series."""
    return [
        *dicom_data.ct_study(6, size=16, series=2, name="Store^One"),
        *dicom_data.ct_study(4, size=16, name="Store^Two"),
    ]


@pytest.fixture(scope="module")
def stored(host: OrthancServer, files: list[bytes]) -> Stored:
    return host.upload_all(files)


def manifest(host: OrthancServer, *resources: tuple[str, str]) -> dict[str, tuple[int, str]]:
    """Identifier -> size and MD5; fails if the order is not ascending."""
    wanted = [{"Level": level, "ID": identifier} for level, identifier in resources]
    found = host.post("host/manifest", wanted)["instances"]
    identifiers = [instance["id"] for instance in found]
    assert identifiers == sorted(set(identifiers))
    return {instance["id"]: (instance["size"], instance["md5"]) for instance in found}


def truth(stored: Stored, files: list[bytes]) -> dict[str, tuple[int, str]]:
    """What a manifest must say of these files."""
    return {
        answer["ID"]: (len(file), hashlib.md5(file).hexdigest())
        for answer, file in zip(stored, files, strict=True)
    }


@pytest.mark.parametrize("level", ["Patient", "Study", "Series"])
def test_a_manifest_names_all_instances_below_a_resource(
    host: OrthancServer, stored: Stored, files: list[bytes], level: str
) -> None:
    parent = stored[0][f"Parent{level}"]
    below = [index for index, answer in enumerate(stored) if answer[f"Parent{level}"] == parent]
    expected = truth([stored[index] for index in below], [files[index] for index in below])
    assert manifest(host, (level, parent)) == expected


def test_resources_of_mixed_levels_that_overlap_name_each_instance_once(
    host: OrthancServer, stored: Stored, files: list[bytes]
) -> None:
    found = manifest(
        host,
        ("Study", stored[-1]["ParentStudy"]),
        ("Instance", stored[-1]["ID"]),
        ("Instance", stored[0]["ID"]),
        ("Series", stored[0]["ParentSeries"]),
        ("Patient", stored[0]["ParentPatient"]),
    )
    assert found == truth(stored, files)


def test_many_single_instances_are_found_among_others_of_their_series(
    make_host: MakeHost,
) -> None:
    host = make_host("many").start()
    files = list(dicom_data.ct_study(60, size=16, series=3))
    stored = host.upload_all(files)
    expected = dict(list(truth(stored, files).items())[:40])
    assert manifest(host, *(("Instance", identifier) for identifier in expected)) == expected
    absent = [ABSENT.replace("4444", f"{number:04}") for number in range(100)]
    asked = [identifier for both in zip(expected, absent, strict=False) for identifier in both] + absent
    answer = host.post("host/md5s", asked)["md5s"]
    assert answer == {identifier: md5 for identifier, (_, md5) in expected.items()}
    with pytest.raises(StatusError, match=f"no instance {absent[0]}"):
        manifest(host, *(("Instance", identifier) for identifier in [*expected, absent[0]]))


def test_a_few_single_instances_need_few_questions_where_each_walks_through_the_archive(
    make_host: MakeHost,
) -> None:
    host = make_host("few").start()
    extended = host.get("system").get("Capabilities", {}).get("HasExtendedFind", False)
    stored = [answer["ID"] for answer in host.upload_all(dicom_data.ct_study(300, size=16))]
    absent = [ABSENT.replace("4444", f"{number:04}") for number in range(5)]
    asked = {
        what: host.post("host/interrupted/md5s/0", wanted)["asked"]
        for what, wanted in (("first", stored[:1]), ("stored", stored[:5]), ("absent", absent))
    }
    # Their study, some of it, the lengths of its series, and the series or (for it is large) each.
    assert asked["stored"] <= (4 if extended else 5), asked
    assert asked["absent"] <= (1 if extended else 5), asked
    small = [answer["ID"] for answer in host.upload_all(dicom_data.ct_study(5, size=16))]
    assert host.post("host/interrupted/md5s/0", small)["asked"] <= (2 if extended else 5)


LISTED = "/tools/find Instance by ParentStudy"
SERIES = "/tools/find Series by ParentStudy"
STUDIES = "/tools/bulk-content Study"


def test_a_study_is_listed_and_looked_up_by_one_walk_through_the_archive(make_host: MakeHost) -> None:
    """Orthanc 1.12.5 and later: a search for instances is one, whatever it finds; a search for series is none."""
    host = make_host("walks").start()
    if not host.get("system").get("Capabilities", {}).get("HasExtendedFind", False):
        pytest.skip("each question is quick here")
    host.post("host/md5s", [])
    files = list(dicom_data.ct_study(40, size=16, series=8))
    stored = host.upload_all(files)
    expected, study = truth(stored, files), stored[0]["ParentStudy"]
    found = host.post("host/manifest", [{"Level": "Study", "ID": study}])
    assert (len(found["instances"]), found["kinds"]) == (40, [SERIES, LISTED])
    found = host.post("host/md5s", list(expected))
    assert found["md5s"] == {one: md5 for one, (_, md5) in expected.items()}
    assert found["kinds"] == [STUDIES, LISTED]
    assert host.post("host/md5s", [ABSENT, ABSENT.replace("4", "5")])["kinds"] == [STUDIES]


def test_a_few_of_a_large_study_are_found_without_listing_it_whole(make_host: MakeHost) -> None:
    host = make_host("part").start()
    files = list(dicom_data.ct_study(900, size=8, series=3))
    stored = host.upload_all(files)
    expected = {one: md5 for one, (_, md5) in truth(stored, files).items()}
    host.post("host/md5s", [])
    # The last of each series, and all of one.
    few = {one["ParentSeries"]: one["ID"] for one in stored}
    whole = [one["ID"] for one in stored if one["ParentSeries"] == stored[0]["ParentSeries"]]
    for wanted in (list(few.values()), whole, list(expected)):
        found = host.post("host/md5s", [*wanted, ABSENT])
        assert found["md5s"] == {one: expected[one] for one in wanted}
        if STUDIES in found["kinds"]:
            assert len(found["kinds"]) <= 6, found["kinds"]


def test_what_was_imported_just_now_needs_few_questions_and_none_is_believed_that_was_deleted(
    make_host: MakeHost,
) -> None:
    host = make_host("imported").start()
    extended = host.get("system").get("Capabilities", {}).get("HasExtendedFind", False)
    quick = at_least(host.get("system")["Version"], UIDS_ARE_QUICK)
    files = list(dicom_data.ct_study(5, size=16))
    added = [host.post("host/add/bytes", file)[1] for file in files]
    # Which version this is, is asked once.
    host.post("host/md5s", [])
    assert host.post("host/interrupted/md5s/0", added)["asked"] <= (1 if quick else 2 if extended else 5)
    assert host.post("host/md5s", added)["md5s"] == {
        identifier: hashlib.md5(file).hexdigest() for identifier, file in zip(added, files, strict=True)
    }
    host.delete(f"instances/{added[0]}")
    assert set(host.post("host/md5s", added)["md5s"]) == set(added[1:])
    for identifier in added[1:]:
        host.delete(f"instances/{identifier}")
    assert host.post("host/md5s", added)["md5s"] == {}


def test_what_was_imported_or_is_at_hand_is_asked_for_by_what_a_large_archive_answers_at_once(
    make_host: MakeHost,
) -> None:
    """By its UID from Orthanc 1.13 on; a walk takes as long as several UIDs where these walk, too."""
    host = make_host("by-uid").start()
    extended = host.get("system").get("Capabilities", {}).get("HasExtendedFind", False)
    host.post("host/md5s", [])
    files = list(dicom_data.ct_study(40, size=16))
    expected = {
        host.post("host/add/bytes", file)[1]: (
            hashlib.md5(file).hexdigest(),
            str(pydicom.dcmread(io.BytesIO(file)).SOPInstanceUID),
        )
        for file in files
    }
    md5s = {one: md5 for one, (md5, _) in expected.items()}
    by_uid, by_patient = "/tools/find Instance by SOPInstanceUID", "/tools/bulk-content Patient"
    quick = at_least(host.get("system")["Version"], UIDS_ARE_QUICK)
    each = ["/instances/attachments/dicom/info"] * 40
    asked = [by_uid, by_uid] if quick else [STUDIES, LISTED] if extended else each
    found = host.post("host/md5s", list(expected))
    assert (found["md5s"], found["kinds"]) == (md5s, asked)
    if not extended:
        return
    host.restart()
    host.post("host/md5s", [])
    found = host.post("host/md5s", {one: uid for one, (_, uid) in expected.items()})
    assert (found["md5s"], found["kinds"]) == (md5s, [by_patient, *asked])
    found = host.post("host/md5s", {ABSENT: "1.2.3"})
    assert (found["md5s"], found["kinds"]) == ({}, [by_patient])
    # A wrong UID, which came from a network, hides nothing.
    one = next(iter(expected))
    assert host.post("host/md5s", {one: "1.2.3"})["md5s"] == {one: md5s[one]}


def beginning(host: OrthancServer, count: int, *resources: tuple[str, str]) -> dict[str, Any]:
    wanted = [{"Level": level, "ID": identifier} for level, identifier in resources]
    answer: dict[str, Any] = host.post(f"host/beginning/{count}", wanted)
    return answer


@pytest.mark.parametrize("count", [0, 1, 3, 9, 10, 11])
def test_the_beginning_is_that_of_the_manifest(
    host: OrthancServer, stored: Stored, files: list[bytes], count: int
) -> None:
    resources = [
        ("Study", stored[-1]["ParentStudy"]),
        ("Instance", stored[0]["ID"]),
        ("Instance", stored[-1]["ID"]),
        ("Patient", stored[0]["ParentPatient"]),
    ]
    found = beginning(host, count, *resources)
    expected = sorted(truth(stored, files).items())[:count]
    assert [(one["id"], (one["size"], one["md5"])) for one in found["instances"]] == expected
    assert found["more"] == max(0, len(stored) - count)


@pytest.mark.parametrize("level", ["Study", "Instance"])
def test_a_beginning_of_what_does_not_exist_names_it(host: OrthancServer, level: str) -> None:
    with pytest.raises(StatusError, match=f"no {level.lower()} {ABSENT}"):
        beginning(host, 5, (level, ABSENT))


def test_a_small_study_is_listed_in_one_question(host: OrthancServer, stored: Stored) -> None:
    if not host.get("system").get("Capabilities", {}).get("HasExtendedFind", False):
        pytest.skip("each question is quick here")
    study = stored[0]["ParentStudy"]
    beginning(host, 50, ("Study", study))
    host.post("host/md5s", [])
    found = beginning(host, 50, ("Study", study))
    assert (found["asked"], found["more"]) == (1, 0)
    assert len(found["instances"]) == len([one for one in stored if one["ParentStudy"] == study])


def test_no_resources_are_an_empty_manifest(host: OrthancServer) -> None:
    assert manifest(host) == {}


@pytest.mark.parametrize("level", ["Patient", "Study", "Series", "Instance"])
@pytest.mark.parametrize(
    "identifier", [ABSENT, "nonsense", "", "../../system", ABSENT.replace("0", "A"), "?x"]
)
def test_a_resource_that_does_not_exist_is_named(host: OrthancServer, level: str, identifier: str) -> None:
    with pytest.raises(StatusError) as raised:
        manifest(host, (level, identifier))
    assert raised.value.status == 404
    assert f"no {level.lower()} {identifier} in" in raised.value.body.decode()


def test_a_resource_of_another_level_does_not_exist(host: OrthancServer, stored: Stored) -> None:
    with pytest.raises(StatusError, match="there is no study"):
        manifest(host, ("Study", stored[0]["ParentSeries"]))


@pytest.mark.parametrize(
    "configuration",
    [
        {"StorageCompression": True},
        {"StoreMD5ForAttachments": False},
        {"LimitFindInstances": 2, "LimitFindResults": 2},
    ],
    ids=lambda configuration: next(iter(configuration)),
)
def test_a_manifest_is_of_the_files_as_sent_whatever_the_options(
    make_host: MakeHost, files: list[bytes], configuration: dict[str, Any]
) -> None:
    host = make_host("options", **configuration).start()
    stored = host.upload_all(files)
    expected = truth(stored, files)
    assert manifest(host, *{("Study", answer["ParentStudy"]) for answer in stored}) == expected
    assert manifest(host, *(("Instance", answer["ID"]) for answer in stored)) == expected
    first = beginning(host, 4, *{("Study", answer["ParentStudy"]) for answer in stored})["instances"]
    assert {one["id"]: (one["size"], one["md5"]) for one in first} == dict(sorted(expected.items())[:4])
    # A limit of Orthanc's on what a search finds is not taken for the end.
    all_of_them = beginning(host, 50, *{("Study", answer["ParentStudy"]) for answer in stored})
    assert (len(all_of_them["instances"]), all_of_them["more"]) == (len(expected), 0)


def test_md5s_are_given_for_what_is_stored_and_nothing_else(
    host: OrthancServer, stored: Stored, files: list[bytes]
) -> None:
    answer = host.post("host/md5s", [stored[0]["ID"], ABSENT, "../system", stored[1]["ID"]])["md5s"]
    assert answer == {stored[index]["ID"]: hashlib.md5(files[index]).hexdigest() for index in (0, 1)}


@pytest.mark.parametrize("compressed", [False, True])
def test_md5s_that_orthanc_does_not_keep_are_those_of_the_files(
    make_host: MakeHost, files: list[bytes], compressed: bool
) -> None:
    configuration = {"StoreMD5ForAttachments": False, "StorageCompression": compressed}
    host = make_host("no-md5", **configuration).start()
    identifier = host.upload(files[0])["ID"]
    expected = {identifier: hashlib.md5(files[0]).hexdigest()}
    assert host.post("host/md5s", [identifier, ABSENT])["md5s"] == expected


def test_a_stored_instance_without_an_md5_and_without_its_file_has_none(
    make_host: MakeHost, files: list[bytes]
) -> None:
    host = make_host("no-file", StoreMD5ForAttachments=False).start()
    identifier = host.upload(files[0])["ID"]
    assert host.post(f"host/intact/{identifier}/{hashlib.md5(files[0]).hexdigest()}") == {"intact": True}
    assert host.post(f"host/intact/{identifier}/{hashlib.md5(files[1]).hexdigest()}") == {"intact": False}
    (file,) = (path for path in host.storage.glob("??/??/*") if path.read_bytes() == files[0])
    file.unlink()
    host.restart()  # Orthanc has a cache of files
    assert host.post("host/md5s", [identifier])["md5s"] == {identifier: None}
    assert host.post(f"host/intact/{identifier}/{hashlib.md5(files[0]).hexdigest()}") == {"intact": False}
    assert "cannot be hashed" in host.log


MANY = 2500


@pytest.fixture(scope="module")
def crowd(make_shared_server: MakeServer) -> tuple[OrthancServer, list[Stored]]:
    """A server with two patients, of many tiny instances each: in one series, and in many."""
    crowded = with_script(make_shared_server, "crowd").start()
    patients = [
        crowded.upload_all(dicom_data.ct_study(MANY, size=8, series=series, name=f"Crowd^{series}"))
        for series in (1, 250)
    ]
    return crowded, patients


@pytest.mark.parametrize("patient", [0, 1], ids=["one series", "many series"])
@pytest.mark.parametrize("kind", ["md5s", "instances", "patient"])
def test_a_canceled_listing_of_many_instances_asks_for_nothing_more(
    crowd: tuple[OrthancServer, list[Stored]], patient: int, kind: str
) -> None:
    server, stored = crowd[0], crowd[1][patient]
    wanted: list[Any] = [answer["ID"] for answer in stored]
    if kind == "patient":
        wanted = [{"Level": "Patient", "ID": stored[0]["ParentPatient"]}]
    elif kind == "instances":
        wanted = [{"Level": "Instance", "ID": identifier} for identifier in wanted]
    whole = server.post(f"host/interrupted/{kind}/0", wanted)
    assert not whole["canceled"]
    # Even at once, not all in one question: it could not be interrupted.
    assert whole["asked"] >= 3
    for number in {1, 2, max(2, whole["asked"] // 2)}:
        answer = server.post(f"host/interrupted/{kind}/{number}", wanted)
        assert answer == {"asked": number, "canceled": True}


@pytest.mark.parametrize("patient", [0, 1], ids=["one series", "many series"])
def test_the_beginning_of_many_asks_for_no_others(
    crowd: tuple[OrthancServer, list[Stored]], patient: int
) -> None:
    server, stored = crowd[0], crowd[1][patient]
    found = beginning(server, 64, ("Study", stored[0]["ParentStudy"]))
    assert [one["id"] for one in found["instances"]] == sorted(answer["ID"] for answer in stored)[:64]
    series = len({answer["ParentSeries"] for answer in stored})
    # The study, each of its series, and the files one by one at the worst.
    assert found["asked"] <= 2 + series + 64 + 64


def test_a_file_is_read_as_it_was_stored(host: OrthancServer, stored: Stored, files: list[bytes]) -> None:
    assert host.download(f"host/read/{stored[3]['ID']}") == files[3]


@pytest.mark.parametrize(("offset", "size"), [(0, 4), (100, 300), (128, 4)])
def test_a_part_of_a_file_is_read_from_the_storage_folder(
    host: OrthancServer, stored: Stored, files: list[bytes], offset: int, size: int
) -> None:
    assert (
        host.download(f"host/read-part/{stored[3]['ID']}/{offset}/{size}") == files[3][offset : offset + size]
    )


def test_a_compressed_file_can_be_read_whole_only(make_host: MakeHost, files: list[bytes]) -> None:
    host = make_host("compressed", StorageCompression=True).start()
    identifier = host.upload(files[0])["ID"]
    assert host.download(f"host/read-part/{identifier}/0/4") == b""
    assert host.download(f"host/read/{identifier}") == files[0]


@pytest.mark.parametrize("identifier", [ABSENT, "nonsense"])
def test_reading_what_is_not_there_says_so(host: OrthancServer, identifier: str) -> None:
    with pytest.raises(StatusError, match=f"no instance {identifier}") as raised:
        host.download(f"host/read/{identifier}")
    assert raised.value.status == 404


@pytest.mark.parametrize("form", ["view", "bytes", "bytearray"])
def test_a_file_is_imported_from_bytes_of_any_kind(host: OrthancServer, form: str) -> None:
    (file,) = dicom_data.ct_study(1, size=16)
    status, identifier = host.post(f"host/add/{form}", file)
    assert status == "Success"
    assert host.download(f"instances/{identifier}/file") == file
    assert host.post(f"host/add/{form}", file) == ["AlreadyStored", identifier]


def test_what_is_not_dicom_is_refused_with_the_reason(host: OrthancServer) -> None:
    with pytest.raises(StatusError, match="not a DICOM file that Orthanc can read"):
        host.post("host/add/view", b"x" * 1000)
    with pytest.raises(StatusError, match="not a DICOM file that Orthanc can read"):
        host.post("host/add/view", b"")


def test_an_archive_is_refused_and_nothing_in_it_is_imported(host: OrthancServer) -> None:
    (file,) = dicom_data.ct_study(1, size=16)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a.dcm", file)
    before = host.instances()
    with pytest.raises(StatusError, match="ZIP archive"):
        host.post("host/add/view", archive.getvalue())
    assert host.instances() == before


def test_a_full_storage_is_said_in_words(make_host: MakeHost) -> None:
    host = make_host("full", MaximumPatientCount=1, MaximumStorageMode="Reject").start()
    if tuple(map(int, host.get("system")["Version"].split("."))) < (1, 11, 3):
        pytest.skip("this Orthanc has no MaximumStorageMode: it recycles")
    first, second = (next(iter(dicom_data.ct_study(1, size=16, name=name))) for name in ("One", "Two"))
    host.upload(first)
    with pytest.raises(StatusError, match="storage is full"):
        host.post("host/add/view", second)


def test_a_file_that_a_filter_drops_is_filtered_out(make_host: MakeHost) -> None:
    host = make_host("filter")
    lua = host.folder / "filter.lua"
    lua.write_text("function ReceivedInstanceFilter(dicom, origin, info) return false end")
    host.configuration["LuaScripts"] = [str(lua)]
    host.start()
    (file,) = dicom_data.ct_study(1, size=16)
    assert host.post("host/add/view", file)[0] == "FilteredOut"
    assert host.instances() == []


def test_an_instance_is_removed_and_removing_it_again_does_no_harm(host: OrthancServer) -> None:
    (file,) = dicom_data.ct_study(1, size=16)
    identifier = host.upload(file)["ID"]
    host.delete(f"host/instances/{identifier}")
    assert identifier not in host.instances()
    host.delete(f"host/instances/{identifier}")
    host.delete("host/instances/nonsense")


def test_the_transfer_syntax_is_that_of_the_file(host: OrthancServer, stored: Stored) -> None:
    assert host.get(f"host/syntax/{stored[0]['ID']}") == EXPLICIT_LITTLE_ENDIAN
    assert host.get(f"host/syntax/{ABSENT}") is None
    assert host.get("host/syntax/nonsense") is None
    compressed = dicom_data.compressed_files()[0]
    identifier = host.upload(compressed.read_bytes())["ID"]
    syntax = pydicom.dcmread(compressed, stop_before_pixels=True).file_meta.TransferSyntaxUID
    assert host.get(f"host/syntax/{identifier}") == str(syntax)
