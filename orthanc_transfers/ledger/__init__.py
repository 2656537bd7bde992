"""The ledger: all transfers of this server, active and ended."""
