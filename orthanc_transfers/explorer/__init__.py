"""What Orthanc Explorer loads: JavaScript and static files."""
