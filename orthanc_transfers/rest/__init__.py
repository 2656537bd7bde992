"""The routes: Request -> Response. Knows no Orthanc."""
