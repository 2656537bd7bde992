"""``python -m orthanc_transfers``: see ``cli/``."""

import sys

from orthanc_transfers.cli.main import main

sys.exit(main(sys.argv[1:]))
