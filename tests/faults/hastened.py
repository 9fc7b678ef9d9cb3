"""The service as it is, but for two waits: scans come often, and a start that never comes is given
up soon.

Out of scope: anything else. All other code, and all that it does, is the product's own.
"""

import sys

from proxmox_cpu_affinity.reconcile import scanning
from proxmox_cpu_affinity.service import app, main

SCAN_EVERY = 0.4  # seconds
RESERVED_FOR = 1.5  # seconds

if __name__ == "__main__":
    vars(app)["SCAN_EVERY"] = SCAN_EVERY
    vars(scanning)["RESERVED_FOR"] = RESERVED_FOR
    sys.exit(main.main())
