"""Routes: Request -> Response. Knows no Orthanc."""
