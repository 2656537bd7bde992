"""Pure functions and values: no Orthanc, thread, file, socket or clock."""
