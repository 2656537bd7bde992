"""Threads, time and disk. Knows no HTTP and no DICOM."""
