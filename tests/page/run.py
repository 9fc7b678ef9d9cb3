"""`make page-test`: the page in Chromium."""

import sys

from tests.suite import run

if __name__ == "__main__":
    sys.exit(run("page", *sys.argv[1:]))
