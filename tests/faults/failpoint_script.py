"""A script for Orthanc: the plugin, with failpoints in some of its methods. See ``failpoint_hooks``."""

from tests.faults.failpoint_hooks import install

install()

import orthanc_transfers  # noqa: E402  (its methods have their failpoints from here on only)

orthanc_transfers.register()
