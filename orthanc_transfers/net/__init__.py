"""HTTP client to one peer."""
