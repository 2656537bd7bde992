"""Shared by the tests, the demo and the benchmark. Only ``fixtures`` imports pytest."""
