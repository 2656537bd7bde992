"""The structures, callbacks and numbers of ``orthanc/OrthancCPlugin.h`` that this plugin uses.

Names are those of the header without their prefix ``_OrthancPlugin``; the order and the types of the
fields are the header's. Pointers to what Orthanc alone understands are plain addresses.
"""

from __future__ import annotations

import ctypes
import enum
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char_p,
    c_float,
    c_int32,
    c_uint8,
    c_uint16,
    c_uint32,
    c_void_p,
)


class Service(enum.IntEnum):
    """``_OrthancPluginService``: all of them exist since Orthanc 1.5.7 unless said otherwise."""

    LOG_INFO = 1
    LOG_WARNING = 2
    LOG_ERROR = 3
    GET_CONFIGURATION_PATH = 6
    GET_CONFIGURATION = 13
    GET_ERROR_DESCRIPTION = 17
    LOOKUP_DICTIONARY = 26
    SET_METRICS_VALUE = 31
    REGISTER_ON_CHANGE_CALLBACK = 1003
    REGISTER_REFRESH_METRICS_CALLBACK = 1011
    REGISTER_REST_CALLBACK_NO_LOCK = 1004
    ANSWER_BUFFER = 2000
    SEND_METHOD_NOT_ALLOWED = 2005
    SET_HTTP_HEADER = 2007
    SEND_HTTP_STATUS = 2010
    SET_HTTP_ERROR_DETAILS = 2013
    GET_DICOM_FOR_INSTANCE = 3000
    REST_API_GET = 3001
    REST_API_POST = 3002
    REST_API_DELETE = 3003
    REST_API_PUT = 3004
    CALL_REST_API = 3016
    FREE_DICOM_INSTANCE = 4011
    TRANSCODE_DICOM_INSTANCE = 4015
    SERIALIZE_DICOM_INSTANCE = 4016
    GET_PEERS = 8000
    FREE_PEERS = 8001
    GET_PEERS_COUNT = 8003
    GET_PEER_NAME = 8004
    GET_PEER_URL = 8005
    CALL_PEER_API = 8006
    GET_PEER_USER_PROPERTY = 8007
    CREATE_JOB = 9000
    FREE_JOB = 9001
    SUBMIT_JOB = 9002
    REGISTER_JOBS_UNSERIALIZER = 9003


class Code(enum.IntEnum):
    """``OrthancPluginErrorCode``, those that are told apart here."""

    SUCCESS = 0
    PLUGIN = 1
    PARAMETER_OUT_OF_RANGE = 3
    NOT_ENOUGH_MEMORY = 4
    INEXISTENT_ITEM = 7
    INEXISTENT_FILE = 13
    CANNOT_WRITE_FILE = 14
    BAD_FILE_FORMAT = 15
    UNKNOWN_RESOURCE = 17
    FULL_STORAGE = 19
    CORRUPTED_FILE = 20
    CANCELED_JOB = 37
    REVISION = 43
    FILE_STORAGE_CANNOT_WRITE = 2001
    REGULAR_FILE_EXPECTED = 2006


class HttpMethod(enum.IntEnum):
    """``OrthancPluginHttpMethod``."""

    GET = 1
    POST = 2
    PUT = 3
    DELETE = 4


class ChangeType(enum.IntEnum):
    """``OrthancPluginChangeType``: those of Orthanc's own life, and triggers of rules."""

    NEW_INSTANCE = 3
    STABLE_PATIENT = 7
    STABLE_SERIES = 8
    STABLE_STUDY = 9
    ORTHANC_STARTED = 10
    ORTHANC_STOPPED = 11


Strings = POINTER(c_char_p)


class Context(Structure):
    _fields_ = (
        ("pluginsManager", c_void_p),
        ("orthancVersion", c_char_p),
        ("Free", c_void_p),
        ("InvokeService", c_void_p),
    )


class MemoryBuffer(Structure):
    _fields_ = (("data", c_void_p), ("size", c_uint32))


class HttpRequest(Structure):
    _fields_ = (
        ("method", c_int32),
        ("groupsCount", c_uint32),
        ("groups", Strings),
        ("getCount", c_uint32),
        ("getKeys", Strings),
        ("getValues", Strings),
        ("body", c_void_p),
        ("bodySize", c_uint32),
        ("headersCount", c_uint32),
        ("headersKeys", Strings),
        ("headersValues", Strings),
    )


RestCallback = CFUNCTYPE(c_int32, c_void_p, c_char_p, POINTER(HttpRequest))
OnChangeCallback = CFUNCTYPE(c_int32, c_int32, c_int32, c_char_p)
RefreshMetricsCallback = CFUNCTYPE(None)
JobFinalize = CFUNCTYPE(None, c_void_p)
JobGetProgress = CFUNCTYPE(c_float, c_void_p)
# An address, not c_char_p: ctypes cannot say how long the text behind a returned c_char_p would live.
JobGetText = CFUNCTYPE(c_void_p, c_void_p)
JobStep = CFUNCTYPE(c_int32, c_void_p)
JobStop = CFUNCTYPE(c_int32, c_void_p, c_int32)
JobReset = CFUNCTYPE(c_int32, c_void_p)
JobsUnserializer = CFUNCTYPE(c_void_p, c_char_p, c_char_p)


class RegisterRestCallback(Structure):
    _fields_ = (("pathRegularExpression", c_char_p), ("callback", RestCallback))


class RegisterOnChangeCallback(Structure):
    _fields_ = (("callback", OnChangeCallback),)


class RegisterRefreshMetricsCallback(Structure):
    _fields_ = (("callback", RefreshMetricsCallback),)


class AnswerBuffer(Structure):
    _fields_ = (
        ("output", c_void_p),
        ("answer", c_void_p),
        ("answerSize", c_uint32),
        ("mimeType", c_char_p),
    )


class OutputPlusArgument(Structure):
    _fields_ = (("output", c_void_p), ("argument", c_char_p))


class SetHttpHeader(Structure):
    _fields_ = (("output", c_void_p), ("key", c_char_p), ("value", c_char_p))


class SendHttpStatus(Structure):
    _fields_ = (
        ("output", c_void_p),
        ("status", c_uint16),
        ("body", c_void_p),
        ("bodySize", c_uint32),
    )


class SetHttpErrorDetails(Structure):
    _fields_ = (("output", c_void_p), ("details", c_char_p), ("log", c_uint8))


class GetDicomForInstance(Structure):
    _fields_ = (("target", POINTER(MemoryBuffer)), ("instanceId", c_char_p))


class RestApiGet(Structure):
    _fields_ = (("target", POINTER(MemoryBuffer)), ("uri", c_char_p))


class RestApiPost(Structure):
    """``RestApiPostPut`` of the header."""

    _fields_ = (
        ("target", POINTER(MemoryBuffer)),
        ("uri", c_char_p),
        ("body", c_void_p),
        ("bodySize", c_uint32),
    )


class DictionaryEntry(Structure):
    _fields_ = (
        ("group", c_uint16),
        ("element", c_uint16),
        ("vr", c_int32),
        ("minMultiplicity", c_uint32),
        ("maxMultiplicity", c_uint32),
    )


class LookupDictionary(Structure):
    _fields_ = (("target", POINTER(DictionaryEntry)), ("name", c_char_p))


class CallRestApi(Structure):
    _fields_ = (
        ("answerBody", POINTER(MemoryBuffer)),
        ("answerHeaders", POINTER(MemoryBuffer)),
        ("httpStatus", POINTER(c_uint16)),
        ("method", c_int32),
        ("uri", c_char_p),
        ("headersCount", c_uint32),
        ("headersKeys", Strings),
        ("headersValues", Strings),
        ("body", c_void_p),
        ("bodySize", c_uint32),
        ("afterPlugins", c_uint8),
    )


class CreateDicomInstance(Structure):
    _fields_ = (
        ("target", POINTER(c_void_p)),
        ("buffer", c_void_p),
        ("size", c_uint32),
        ("transferSyntax", c_char_p),
    )


class FreeDicomInstance(Structure):
    _fields_ = (("dicom", c_void_p),)


class AccessDicomInstance2(Structure):
    _fields_ = (
        ("targetUint32", POINTER(c_uint32)),
        ("targetBuffer", POINTER(MemoryBuffer)),
        ("targetImage", POINTER(c_void_p)),
        ("targetStringToFree", POINTER(c_char_p)),
        ("instance", c_void_p),
        ("frameIndex", c_uint32),
        ("format", c_int32),
        ("flags", c_int32),
        ("maxStringLength", c_uint32),
        ("dicomWebCallback", c_void_p),
        ("dicomWebPayload", c_void_p),
    )


class RetrieveDynamicString(Structure):
    _fields_ = (("result", POINTER(c_void_p)), ("argument", c_char_p))


class GetErrorDescription(Structure):
    _fields_ = (("target", POINTER(c_char_p)), ("error", c_int32))


class SetMetricsValue(Structure):
    _fields_ = (("name", c_char_p), ("value", c_float), ("type", c_int32))


class GetPeers(Structure):
    _fields_ = (("peers", POINTER(c_void_p)),)


class FreePeers(Structure):
    _fields_ = (("peers", c_void_p),)


class GetPeersCount(Structure):
    _fields_ = (("target", POINTER(c_uint32)), ("peers", c_void_p))


class GetPeerProperty(Structure):
    _fields_ = (
        ("target", POINTER(c_char_p)),
        ("peers", c_void_p),
        ("peerIndex", c_uint32),
        ("userProperty", c_char_p),
    )


class CallPeerApi(Structure):
    _fields_ = (
        ("answerBody", POINTER(MemoryBuffer)),
        ("answerHeaders", POINTER(MemoryBuffer)),
        ("httpStatus", POINTER(c_uint16)),
        ("peers", c_void_p),
        ("peerIndex", c_uint32),
        ("method", c_int32),
        ("uri", c_char_p),
        ("additionalHeadersCount", c_uint32),
        ("additionalHeadersKeys", Strings),
        ("additionalHeadersValues", Strings),
        ("body", c_void_p),
        ("bodySize", c_uint32),
        ("timeout", c_uint32),
    )


class CreateJob(Structure):
    _fields_ = (
        ("target", POINTER(c_void_p)),
        ("job", c_void_p),
        ("finalize", JobFinalize),
        ("type", c_char_p),
        ("getProgress", JobGetProgress),
        ("getContent", JobGetText),
        ("getSerialized", JobGetText),
        ("step", JobStep),
        ("stop", JobStop),
        ("reset", JobReset),
    )


class FreeJob(Structure):
    _fields_ = (("job", c_void_p),)


class SubmitJob(Structure):
    _fields_ = (("resultId", POINTER(c_void_p)), ("job", c_void_p), ("priority", ctypes.c_int))


class RegisterJobsUnserializer(Structure):
    _fields_ = (("unserializer", JobsUnserializer),)


class PyBuffer(Structure):
    """``Py_buffer`` of CPython's stable C interface."""

    _fields_ = (
        ("buf", c_void_p),
        ("obj", c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", c_char_p),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("suboffsets", c_void_p),
        ("internal", c_void_p),
    )
