"""Push and pull as jobs of Orthanc."""
