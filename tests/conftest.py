"""What all folders of tests have."""

from tests.support.fixtures import (  # noqa: F401  (pytest finds them by their names here)
    make_server,
    make_shared_server,
    pytest_runtest_makereport,
    two_servers,
)
