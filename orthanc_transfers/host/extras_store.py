"""Labels, user-defined metadata and attachments of the Orthanc in whose process we run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import ABSENT, Conflict, HostError, UnknownResource
from orthanc_transfers.core.extras import Extra, Kind
from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.orthanc_version import LABELS, at_least
from orthanc_transfers.core.paths import resource_path
from orthanc_transfers.host.extras_listing import ExtrasListing
from orthanc_transfers.host.instance_index import InstanceIndex, unknown
from orthanc_transfers.host.native.sdk import RestAnswer, Sdk
from orthanc_transfers.host.native.structures import Code, HttpMethod
from orthanc_transfers.host.storage_check import StorageCheck
from orthanc_transfers.host.user_numbers import UserNumbers
from orthanc_transfers.interfaces import Held
from orthanc_transfers.runtime.cancellation import Cancellation

OK, NOT_FOUND = 200, 404


class OrthancExtras:
    """Implements ``interfaces.ExtrasStore``. To be used once Orthanc has started. Thread-safe.

    Changes go through Orthanc's REST API with ``If-Match``: it checks revisions where ``CheckRevisions`` is set.
    """

    def __init__(self, sdk: Sdk, configuration: Mapping[str, Any], storage_check: StorageCheck) -> None:
        self._sdk = sdk
        self._storage_check = storage_check
        self._index = InstanceIndex(sdk)
        self._numbers = UserNumbers.of(configuration)
        self.name = str(configuration.get("Name", ""))
        none = () if at_least(sdk.version, LABELS) else (Kind.LABEL,)
        self.kinds = frozenset(kind for kind in Kind if kind not in none)

    def listed(
        self, resources: Sequence[Resource], kinds: Collection[Kind], cancellation: Cancellation
    ) -> tuple[list[Extra], list[str]]:
        possible = self.kinds & frozenset(kinds)
        listing = ExtrasListing(self._sdk, self._index, self._numbers, possible, cancellation)
        listing.run(resources)
        return listing.found, listing.notes

    def resolved(self, extra: Extra) -> Extra | str:
        if extra.kind not in self.kinds:
            return f"{extra.shown}: this version of Orthanc has none"
        known = {
            Kind.METADATA: self._numbers.metadata_numbers,
            Kind.ATTACHMENT: self._numbers.attachment_numbers,
        }.get(extra.kind, {})
        if extra.name in known:
            return replace(extra, number=known[extra.name])
        for name, number in known.items():
            if extra.kind is not Kind.LABEL and number == extra.number:
                return f"{extra.shown}: its number {number} is that of {name} here"
        return extra

    def holds_any(self, resource: Resource, instances: Container[str], cancellation: Cancellation) -> bool:
        with contextlib.suppress(UnknownResource):
            below = self._index.instances_below(resource.level, resource.id, cancellation)
            return any(one in instances for one in below) and self._index.exists(resource)
        return False

    def held(self, extra: Extra) -> Held | None:
        path = _path(extra)
        if extra.kind is Kind.LABEL:
            labels = self._index.get(f"{resource_path(extra.resource)}/labels")
            return Held() if labels is not None and extra.name in json.loads(labels) else None
        answer = self._call(HttpMethod.GET, path)
        return None if answer is None else Held(md5(answer.body), answer.body, answer.headers.get("etag", ""))

    def attachment(self, resource: Resource, number: int) -> bytes:
        data = self._index.get(f"{resource_path(resource)}/attachments/{number}/data")
        if data is None:
            raise unknown(resource.level, f"{resource.id} with attachment {number}")
        return data

    def put(self, extra: Extra, data: Buffer, instead: Held | None) -> None:
        path = _path(extra).removesuffix("/data")
        headers = {"if-match": instead.revision} if instead is not None and instead.revision else {}
        # All others are in the index only.
        attached = extra.kind is Kind.ATTACHMENT
        with self._storage_check.room_for(len(data)) if attached else contextlib.nullcontext():
            if self._call(HttpMethod.PUT, path, headers, data) is None:
                raise HostError(f"{path} does not exist", Code.UNKNOWN_RESOURCE)

    def remove(self, extra: Extra, instead: Held) -> None:
        path = _path(extra).removesuffix("/data")
        headers = {"if-match": instead.revision} if instead.revision else {}
        self._call(HttpMethod.DELETE, path, headers)

    def _call(
        self, method: HttpMethod, path: str, headers: Mapping[str, str] | None = None, body: Buffer = b""
    ) -> RestAnswer | None:
        """``None`` for what does not exist. Raises ``Conflict`` for an outdated revision, ``HostError``."""
        try:
            answer = self._sdk.rest_call(method, path, headers, body)
        except HostError as error:
            if error.code in ABSENT:
                return None
            if error.code == Code.REVISION:
                raise Conflict(f"{path} was changed meanwhile") from error
            raise
        # Of a metadata that is absent, 1.10 raises it, and 1.13 sends it.
        if answer.status == NOT_FOUND:
            return None
        if answer.status != OK:
            raise HostError(
                f"{method.name} {path} failed: Orthanc reports status {answer.status}", Code.PLUGIN
            )
        return answer


def _path(extra: Extra) -> str:
    """Of its value."""
    collection = {
        Kind.LABEL: f"labels/{extra.name}",
        Kind.METADATA: f"metadata/{extra.number}",
        Kind.ATTACHMENT: f"attachments/{extra.number}/data",
    }[extra.kind]
    return f"{resource_path(extra.resource)}/{collection}"
