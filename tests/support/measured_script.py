"""A script for Orthanc: the plugin, and a route that tells what the process has in use. See ``heap.py``."""

import ctypes
import json
import sys
from typing import Any

import orthanc

import orthanc_transfers

orthanc_transfers.register()


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = _Mallinfo2


def _heap(output: Any, uri: str, **request: Any) -> None:
    told = _mallinfo2()
    answer = {"Malloc": told.uordblks + told.hblkhd, "Blocks": sys.getallocatedblocks()}
    output.AnswerBuffer(json.dumps(answer), "application/json")


orthanc.RegisterRestCallback("/measured/heap", _heap)
