"""ctypes into Orthanc's SDK."""
