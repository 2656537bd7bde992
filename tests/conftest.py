"""Shared by all folders of tests."""

from hypothesis import HealthCheck, settings

from tests.support.fixtures import (  # noqa: F401  (pytest finds them by their names here)
    make_server,
    make_shared_server,
    pytest_collection_modifyitems,
    pytest_runtest_makereport,
    two_servers,
)

# On a busy machine an example may take long without anything being wrong with it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
