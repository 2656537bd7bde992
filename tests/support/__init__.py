"""What tests, the demo and the benchmark share. Nothing here imports pytest but ``fixtures``."""
