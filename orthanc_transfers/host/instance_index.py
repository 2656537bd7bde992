"""Orthanc's index of instances: which are below a resource, and the size and MD5 of each file.

What is asked for, and in which order, is decided by what each question costs (``index_questions.py``). Each takes about
a tenth of a second at most, since Orthanc cannot be interrupted in one; work that was canceled stops between two.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.dicom import UidOf, instance_uid
from orthanc_transfers.core.errors import UnknownResource
from orthanc_transfers.core.model import IDENTIFIER, Level, Resource
from orthanc_transfers.core.paths import COLLECTIONS, resource_path
from orthanc_transfers.host.index_questions import IndexedFile, IndexQuestions, ids
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.runtime.cancellation import Cancellation

# For each level, the key of its children in Orthanc's JSON, and their level.
_CHILDREN = {
    Level.PATIENT: ("Studies", Level.STUDY),
    Level.STUDY: ("Series", Level.SERIES),
    Level.SERIES: ("Instances", Level.INSTANCE),
}

# Instances that are cheaper to ask for one by one, before 1.12.5.
_FEW = 16

# Instances imported lately whose UIDs are remembered.
_MAX_IMPORTED = 10_000

# UIDs of instances to search for at once. Up to some 50 are found by an index of Orthanc's (3 ms with 80,000 instances
# stored on 1.13.0), of 200 each takes a millisecond.
_UIDS = 32

# Instances that are listed in the time that a search takes besides, which walks through the archive.
_WALK = 256

# Instances to ask for at once, before 1.12.5: few at first, since each that is stored costs time and one would do;
# never more than take about that many seconds, since Orthanc cannot be interrupted.
_FIRST_BATCH = _FEW + 1
_MAX_BATCH = 4096
_BATCH_SECONDS = 0.1

# Resources whose patients or studies are asked for at once.
_PARENTS_BATCH = 1000

# Instances below a resource that Orthanc lists at once, in the time of a batch.
_PAGE = 2048


class InstanceIndex:
    """To be used once Orthanc has started. Thread-safe."""

    def __init__(self, sdk: Sdk) -> None:
        self._questions = IndexQuestions(sdk)
        # Needs no lock: each use is a single operation of a dict.
        self._imported: dict[str, str | None] = {}

    def imported(self, identifier: str, data: Buffer) -> None:
        """An instance was imported just now, from that file: it costs less to be asked about later. Never raises."""
        if len(self._imported) >= _MAX_IMPORTED:
            self._imported = {}
        self._imported[identifier] = instance_uid(data) if self._questions.may_find_uids else None

    def exists(self, resource: Resource) -> bool:
        """Whether it is stored."""
        if not IDENTIFIER.fullmatch(resource.id):
            return False
        path = resource_path(resource)
        if resource.level in (Level.SERIES, Level.INSTANCE):
            # Which is quick to answer in a large archive, where the resource itself is not.
            path += "/study"
        return self.get(path) is not None

    def get(self, uri: str) -> bytes | None:
        """``GET`` from Orthanc itself; ``None`` for what does not exist."""
        return self._questions.get(uri)

    @property
    def has_extended_find(self) -> bool:
        """Whether ``POST /tools/find`` gives the attachments of many instances at once (1.12.5 and later)."""
        return self._questions.has_extended_find

    def file(self, identifier: str) -> IndexedFile | None:
        """The file of one instance; ``None`` if it is not stored."""
        return self._questions.file(identifier) if IDENTIFIER.fullmatch(identifier) else None

    # -- Instances by their identifiers

    def files(
        self, wanted: Sequence[str], cancellation: Cancellation, uid_of: UidOf | None = None
    ) -> dict[str, IndexedFile]:
        """The files of those instances that are stored, out of any number.

        Those whose SOP Instance UIDs are known, because they were imported lately or by ``uid_of``, are searched for by
        these where that costs the same in any archive; of the others, whole studies are listed, or series.
        """
        imported = self._imported
        known = [one for one in wanted if one in imported]
        if known or uid_of is None:
            uid_of = imported.get
        # Who has them at hand is about to store them: as a rule, none is there. One question says so.
        elif not self.patients_of(wanted, cancellation):
            return {}
        found: dict[str, IndexedFile] = {}
        if self._questions.finds_uids:
            uids = {one: uid for one in wanted if (uid := uid_of(one)) is not None}
            found = self._search(uids, cancellation)
        elif not self.has_extended_find:
            # One that is there costs less by itself than to be found among others first.
            self._add_each(known, found, cancellation)
        others = [one for one in wanted if one not in found]
        look_up = self._in_studies if self.has_extended_find else self._in_series
        found.update(look_up(others, cancellation))
        return {identifier: found[identifier] for identifier in wanted if identifier in found}

    def _search(self, uids: Mapping[str, str], cancellation: Cancellation) -> dict[str, IndexedFile]:
        """The files of those instances, by their identifiers, that are found by their SOP Instance UIDs."""
        found: dict[str, IndexedFile] = {}
        waiting = iter(uids.items())
        while batch := dict(itertools.islice(waiting, _UIDS)):
            cancellation.check()
            query = {"Query": {"SOPInstanceUID": "\\".join(dict.fromkeys(batch.values()))}}
            # Others, of another patient say, may have the same.
            files = self._questions.find_files(query)
            found.update((one, file) for one, file in files.items() if one in batch)
        return found

    def _in_studies(self, wanted: Sequence[str], cancellation: Cancellation) -> dict[str, IndexedFile]:
        """The files of those that are stored, and maybe of others. Orthanc tells quickly of which studies they are."""
        found: dict[str, IndexedFile] = {}
        missing = frozenset(wanted)
        for study in self._parents(Level.STUDY, wanted, cancellation):
            self._add_from_study(Resource(Level.STUDY, study), missing, found, cancellation)
        return found

    def _add_from_study(
        self,
        study: Resource,
        wanted: Collection[str],
        found: dict[str, IndexedFile],
        cancellation: Cancellation,
    ) -> None:
        page = min(_PAGE, max(_WALK, 2 * len(wanted)))
        some = self._find(study, cancellation, enough=page)
        found.update(some)
        if self._is_all(some, page):
            return
        # There are many more; or a limit of the configuration (LimitFindInstances) cut them off.
        series = {
            one: (len(instances), [each for each in instances if each in wanted and each not in found])
            for one, instances in self._series_below(study, cancellation).items()
        }
        costs = {one: _cost(size, len(here)) for one, (size, here) in series.items() if here}
        rest = sum(size for size, _ in series.values()) - len(some)
        if rest <= sum(costs.values()) and len(some) == page:
            found.update(self._find(study, cancellation, since=page))
        else:
            for one in costs:
                size, here = series[one]
                if size <= _WALK * len(here):
                    found.update(self._find(Resource(Level.SERIES, one), cancellation))
        for _, here in series.values():
            self._add_each((one for one in here if one not in found), found, cancellation)

    def _in_series(self, wanted: Sequence[str], cancellation: Cancellation) -> dict[str, IndexedFile]:
        """As ``_in_studies``, before 1.12.5.

        Many are asked for at once, which is quick for those that are not stored; and one that is stored leads to its
        whole series, which costs what one does.
        """
        found: dict[str, IndexedFile] = {}
        waiting, batch = (identifier for identifier in wanted if identifier not in found), _FIRST_BATCH
        while len(asked := list(itertools.islice(waiting, batch))) > _FEW:
            cancellation.check()
            began = time.monotonic()
            # Maybe also some that were deleted lately.
            stored = {
                item["ID"]: item["ParentSeries"] for item in self._questions.at_level(Level.INSTANCE, asked)
            }
            fitting = int(batch * _BATCH_SECONDS / max(time.monotonic() - began, 1e-6))
            batch = max(_FIRST_BATCH, min(fitting, batch * 4, _MAX_BATCH))
            for series in set(stored.values()):
                with contextlib.suppress(UnknownResource):  # it was deleted meanwhile
                    found.update(self.files_below(Resource(Level.SERIES, series), cancellation))
            self._add_each((one for one in stored if one not in found), found, cancellation)
        self._add_each(asked, found, cancellation)
        return found

    def _add_each(
        self, identifiers: Iterable[str], found: dict[str, IndexedFile], cancellation: Cancellation
    ) -> None:
        for identifier in identifiers:
            cancellation.check()
            file = self.file(identifier)
            if file is not None:
                found[identifier] = file

    # -- Instances below a resource

    def files_below(
        self, resource: Resource, cancellation: Cancellation
    ) -> Iterator[tuple[str, IndexedFile]]:
        """The files of all instances below a resource. Raises ``UnknownResource``; ``Canceled``."""
        below = list(self.instances_below(resource.level, resource.id, cancellation))
        at_once = self._find(resource, cancellation) if self.has_extended_find else {}
        for identifier in below:
            cancellation.check()
            # One by one also those that a limit of the configuration (LimitFindInstances) cut off.
            file = at_once.get(identifier) or self.file(identifier)
            if file is None:
                raise unknown(Level.INSTANCE, identifier)
            yield identifier, file

    def all_files_below(
        self, resource: Resource, fewer_than: int, cancellation: Cancellation
    ) -> dict[str, IndexedFile] | None:
        """The files of all instances below a resource, in one question; ``None`` where that cannot be told."""
        if not self.has_extended_find or resource.level is Level.INSTANCE or fewer_than < 1:
            return None
        found = self._find(resource, cancellation, enough=fewer_than)
        return found if found and self._is_all(found, fewer_than) else None

    def some_files_below(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation
    ) -> dict[str, IndexedFile]:
        """Files below some resources, ``count`` or about as many, that Orthanc lists at once; none before 1.12.5."""
        found: dict[str, IndexedFile] = {}
        if self.has_extended_find:
            for resource in resources:
                if resource.level is not Level.INSTANCE and len(found) < count:
                    found.update(self._find(resource, cancellation, enough=count))
        return found

    def instances_below(self, level: Level, identifier: str, cancellation: Cancellation) -> Iterator[str]:
        """The identifiers of all instances below a resource. Raises ``UnknownResource``; ``Canceled``."""
        if level is Level.INSTANCE:
            yield identifier
            return
        if not self.has_extended_find:
            yield from self._asked_below(level, identifier, Level.INSTANCE, cancellation)
            return
        series = self._series_below(Resource(level, identifier), cancellation)
        if not series:
            raise unknown(level, identifier)
        yield from itertools.chain.from_iterable(series.values())

    def _series_below(self, resource: Resource, cancellation: Cancellation) -> dict[str, list[str]]:
        """The series below a resource, each with its instances; none if it does not exist. Needs extended find."""
        cancellation.check()
        found = self._questions.find_series(resource)
        if found is not None:
            return found
        # A limit of the configuration (LimitFindResults) may have cut some off.
        with contextlib.suppress(UnknownResource):
            return {
                one: list(self._asked_below(Level.SERIES, one, Level.INSTANCE, cancellation))
                for one in self._asked_below(resource.level, resource.id, Level.SERIES, cancellation)
            }
        return {}

    def _asked_below(
        self, level: Level, identifier: str, wanted: Level, cancellation: Cancellation
    ) -> Iterator[str]:
        if level is wanted:
            yield identifier
            return
        cancellation.check()
        answer = self.get(f"/{COLLECTIONS[level]}/{identifier}")
        if answer is None:
            raise unknown(level, identifier)
        key, child_level = _CHILDREN[level]
        for child in json.loads(answer)[key]:
            yield from self._asked_below(child_level, child, wanted, cancellation)

    def _find(
        self, resource: Resource, cancellation: Cancellation, *, since: int = 0, enough: int | None = None
    ) -> dict[str, IndexedFile]:
        """The files of the instances below a resource, many at once; of all, unless the configuration limits them.

        From number ``since`` on; or, if ``enough`` will do, of one page at most.
        """
        page = _PAGE if enough is None else min(enough, _PAGE)
        query = {"Query": {}, f"Parent{resource.level.value}": resource.id, "Limit": page}
        found: dict[str, IndexedFile] = {}
        for first in itertools.count(since, page):
            cancellation.check()
            some = self._questions.find_files({**query, "Since": first})
            found.update(some)
            if len(some) < page or enough is not None:
                break
        return found

    def _is_all(self, found: Collection[str], page: int) -> bool:
        """Whether a search for as many as a page has found all that there are."""
        return len(found) < min(page, self._questions.max_instances or page)

    # -- Parents

    def patients_of(self, identifiers: Iterable[str], cancellation: Cancellation) -> frozenset[str]:
        """The patients of those resources, of any level, that are stored."""
        return frozenset(self._parents(Level.PATIENT, identifiers, cancellation))

    def _parents(
        self, level: Level, identifiers: Iterable[str], cancellation: Cancellation
    ) -> Collection[str]:
        found: dict[str, None] = {}
        waiting = (identifier for identifier in identifiers if IDENTIFIER.fullmatch(identifier))
        while batch := list(itertools.islice(waiting, _PARENTS_BATCH)):
            cancellation.check()
            found.update(dict.fromkeys(ids(self._questions.at_level(level, batch))))
        return found


def _cost(size: int, wanted: int) -> int:
    """Of some instances of a series of that size, whether all are listed or each by itself; in instances listed."""
    return _WALK + min(size, _WALK * wanted)


def check_identifier(level: Level, identifier: str) -> None:
    """Raises ``UnknownResource`` for what cannot be an identifier of Orthanc."""
    if not IDENTIFIER.fullmatch(identifier):
        raise unknown(level, identifier[:100])


def unknown(level: Level, identifier: str) -> UnknownResource:
    """The error for a resource that does not exist."""
    return UnknownResource(f"there is no {level.value.lower()} {identifier} in this Orthanc")
