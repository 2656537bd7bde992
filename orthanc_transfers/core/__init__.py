"""Pure: no Orthanc, thread, file, socket or clock."""
