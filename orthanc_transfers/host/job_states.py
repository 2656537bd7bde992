"""States of jobs, as ``GET /jobs/{id}`` has them; a canceled job is a failed one there, with a code of its own."""

SUCCESS = "Success"
FAILURE = "Failure"
CANCELED = "Canceled"
"""Our name for it."""

ENDED = frozenset({SUCCESS, FAILURE, CANCELED})
