"""A script for Orthanc: the plugin, with failpoints in some of its methods. See ``failpoint_hooks``.

``CLUSTER_LEASE`` in the environment: seconds that a lease lasts, instead of 8; and jobs are looked at more often.
"""

import os

from tests.faults.failpoint_hooks import install

install()

if "CLUSTER_LEASE" in os.environ:
    from orthanc_transfers.cluster.cluster import join
    from orthanc_transfers.cluster.job_keeper import JobKeeper
    from orthanc_transfers.cluster.nodes import Timing

    lease = float(os.environ["CLUSTER_LEASE"])
    assert join.__kwdefaults__ is not None
    join.__kwdefaults__["timing"] = Timing(lease, heartbeat=lease / 5, margin=lease / 8)
    assert JobKeeper.__init__.__kwdefaults__ is not None
    JobKeeper.__init__.__kwdefaults__.update(period=lease / 4, steady=lease / 2)

import orthanc_transfers  # noqa: E402  (its methods have their failpoints from here on only)

orthanc_transfers.register()
