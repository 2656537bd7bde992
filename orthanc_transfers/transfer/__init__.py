"""The engine: threads, files and HTTP. Knows no Orthanc."""
