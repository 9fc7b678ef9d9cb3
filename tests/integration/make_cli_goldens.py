"""Rewrites tests/goldens/cli: python -m tests.integration.make_cli_goldens; review it as a diff."""

import os

from tests.integration.cli_story import GOLDENS, whole_story


def main() -> None:
    """Write what the commands say now, and remove files that no command makes any more."""
    for name in [name for name in os.environ if name.startswith("PCA_")]:
        del os.environ[name]
    told = whole_story()
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for old in GOLDENS.iterdir():
        if old.name not in told:
            old.unlink()
    for name, text in told.items():
        (GOLDENS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
