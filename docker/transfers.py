"""The script of Orthanc's Python plugin. Lines of your own may stand before or after these two."""

import orthanc_transfers

orthanc_transfers.register()
