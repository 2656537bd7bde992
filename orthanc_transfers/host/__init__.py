"""The only place that touches Orthanc: ``import orthanc`` and ctypes."""
