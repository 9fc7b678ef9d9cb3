"""`python -m proxmox_cpu_affinity`: the command line, where no launcher is installed."""

import sys

from proxmox_cpu_affinity.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
