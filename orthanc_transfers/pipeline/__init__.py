"""Moves buckets, in either direction."""
