"""The service, which writes into a file what memory it holds each time it is sent SIGUSR1.

python -m tests.load.watched REPORT FLAGS-OF-THE-SERVICE...
"""

import gc
import json
import signal
import sys
import tracemalloc
from pathlib import Path
from types import FrameType

from proxmox_cpu_affinity.service import main


def reporting(file: Path) -> None:
    """Write into `file` on SIGUSR1, whole or not at all."""

    def tell(number: int, frame: FrameType | None) -> None:
        del number, frame
        gc.collect()
        held = {"traced": tracemalloc.get_traced_memory()[0], "blocks": sys.getallocatedblocks()}
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(held))
        fresh.replace(file)

    signal.signal(signal.SIGUSR1, tell)


if __name__ == "__main__":
    tracemalloc.start()
    reporting(Path(sys.argv[1]))
    sys.exit(main.main(sys.argv[2:]))
