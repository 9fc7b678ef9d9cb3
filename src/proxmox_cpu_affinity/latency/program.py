"""Where the measuring program is. This is the only place that looks for it.

Out of scope: starting it (probe.py) and its lines (protocol.py).
"""

import os
from collections.abc import Mapping
from pathlib import Path

from proxmox_cpu_affinity.model.errors import MeasureError

INSTALLED = Path("/usr/libexec/proxmox-cpu-affinity/pingpong")
OVERRIDE = "PCA_PINGPONG"


def find_program(
    environment: Mapping[str, str] = os.environ, *, module: Path = Path(__file__)
) -> Path:
    """The measuring program; `module` is where this file lies. MeasureError where there is none.

    PCA_PINGPONG names it; else a checkout's own one comes first, so that a checkout never runs the
    program of an installed package of another version; else the installed one.
    """
    named = environment.get(OVERRIDE)
    candidates = [Path(named)] if named else [*_built(module.resolve()), INSTALLED]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise MeasureError(
        f"no measuring program at {' or '.join(map(str, candidates))}",
        hint=f"correct {OVERRIDE}" if named else "build it with: make setup",
    )


def _built(module: Path) -> list[Path]:
    """The program in the build folder of the checkout, where the module lies below its `src`."""
    source = module.parents[2]
    return [source.parent / "build" / "pingpong"] if source.name == "src" else []
