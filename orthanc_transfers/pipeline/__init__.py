"""Moves buckets to or from a peer: which bytes next, how many at once, how large, compressed or not."""
