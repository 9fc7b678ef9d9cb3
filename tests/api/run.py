"""`make api-test`: the API under attack, over real sockets and by schemathesis.

SHORT=1 leaves out what waits for patience to end.
"""

import os
import sys

from tests.suite import run

if __name__ == "__main__":
    short = ["-m", "not patient"] if os.environ.get("SHORT") else []
    sys.exit(run("api", *short, *sys.argv[1:]))
