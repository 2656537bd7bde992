"""Calls of Orthanc's SDK about DICOM files in memory."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import HostError
from orthanc_transfers.host.native import structures
from orthanc_transfers.host.native.buffers import pinned
from orthanc_transfers.host.native.calls import Calls, text, uint32
from orthanc_transfers.host.native.structures import Code, MemoryBuffer, Service


class DicomCalls(Calls):
    """DICOM files, as Orthanc parses and writes them."""

    def transcode(self, data: Buffer, transfer_syntax: str) -> memoryview:
        """A DICOM file in another transfer syntax (its UID), by Orthanc's transcoder or that of a plugin.

        Raises ``HostError`` if it cannot be transcoded.
        """
        target, doing = c_void_p(), f"transcoding to {transfer_syntax}"
        with pinned(data) as (address, size):
            creation = structures.CreateDicomInstance(
                ctypes.pointer(target), address, uint32(size), text(transfer_syntax)
            )
            self._call(Service.TRANSCODE_DICOM_INSTANCE, creation, doing)
        if not target.value:
            raise HostError(f"{doing} failed: Orthanc returned nothing", Code.PLUGIN)
        try:
            result = MemoryBuffer()
            access = structures.AccessDicomInstance2(targetBuffer=ctypes.pointer(result), instance=target)
            self._call(Service.SERIALIZE_DICOM_INSTANCE, access, doing)
            return self._taken_view(result)
        finally:
            self._invoke(
                self._context, Service.FREE_DICOM_INSTANCE, byref(structures.FreeDicomInstance(target))
            )
