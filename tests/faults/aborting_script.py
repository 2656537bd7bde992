"""A script for Orthanc: the plugin, and a user's callback that ends the process when it sees a certain patient."""

import os

import orthanc

import orthanc_transfers

orthanc_transfers.register()


def receive(data: bytes, origin: object) -> tuple[object, None]:
    """Called by Orthanc with each file, before it is stored."""
    if b"Phantom^Abort" in data:
        os.abort()
    return orthanc.ReceivedInstanceAction.KEEP_AS_IS, None


orthanc.RegisterReceivedInstanceCallback(receive)
