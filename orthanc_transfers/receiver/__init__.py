"""Incoming transfers, pushed or pulled."""
