"""The walls of the house: who imports whom, what pure layers may not touch, how large things are.

The walker reads the source; it never imports it, so an import inside a function counts as well.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "proxmox_cpu_affinity"
SOURCE = Path(__file__).parents[2] / "src" / PACKAGE

# A layer imports from the rows before its own only. Two ways lead past that: see ALSO.
ROWS = (
    "model",
    "formats",
    "engine",
    "reconcile",
    "ports",
    "linux",
    "pve",
    "latency",
    "store",
    "render",
    "service",
    "cli",
    "sim",
)
ALSO: Mapping[str, frozenset[str]] = {"cli": frozenset({"sim"})}
NOT: Mapping[str, frozenset[str]] = {"sim": frozenset({"cli", "service"})}
# What only one layer may import.
ONLY: Mapping[str, str] = {f"{PACKAGE}.pve.qm": "cli", f"{PACKAGE}.sim": "cli"}

PURE_LAYERS = ("model", "formats", "engine", "reconcile", "ports")
PURE_MODULES = tuple(
    f"{PACKAGE}.latency.{name}"
    for name in ("schedule", "predict", "protocol", "judge", "cache", "contradict")
)
IMPURE = frozenset(
    (
        *("os", "pathlib", "subprocess", "time", "random", "logging", "socket", "asyncio"),
        *("threading", "shutil", "tempfile", "signal", "select", "fcntl", "sys", "io", "glob"),
        *("http", "urllib.request", "secrets", "uuid", "datetime"),
    )
)
NUMPY_LAYER = "engine"
VAGUE = frozenset(("utils", "util", "helpers", "helper", "common", "manager", "misc"))
MODULE_LINES, FUNCTION_LINES = 500, 60


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: its dotted name, and its text."""

    name: str
    text: str

    @property
    def layer(self) -> str:
        """The row it belongs to; the package itself and __main__ belong to none."""
        rest = self.name.removeprefix(PACKAGE).removeprefix(".")
        return rest.partition(".")[0]


def modules() -> list[Module]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(SOURCE).with_suffix("").parts]
        name = ".".join(parts).removesuffix(".__init__")
        found.append(Module(name, path.read_text()))
    return found


def imported(module: Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a module imports; `from x import y` may name a module."""
    for node in ast.walk(ast.parse(module.text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or "")
                continue
            assert node.module is not None
            yield node.lineno, node.module
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def _inside(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def _row_fault(layer: str, target: str) -> str | None:
    """Why a layer may not import from another, None if it may."""
    if layer == target or layer in ("", "__main__") or target in ALSO.get(layer, ()):
        return None
    if target not in ROWS:
        return f"{target or 'the package'} is no layer"
    if target in NOT.get(layer, ()):
        return f"{layer} may not import {target}"
    return None if ROWS.index(target) < ROWS.index(layer) else f"{target} is no row before {layer}"


def _is_pure(module: Module) -> bool:
    return module.layer in PURE_LAYERS or module.name in PURE_MODULES


def import_faults(module: Module) -> list[str]:
    """Every import of this module that the walls forbid."""
    faults = []
    for line, name in imported(module):
        why = _import_fault(module, name)
        if why is not None:
            faults.append(f"{module.name}, line {line}: {name}: {why}")
    return faults


def _import_fault(module: Module, name: str) -> str | None:
    if name.startswith("."):
        return "imports are absolute here"
    top = name.partition(".")[0]
    if top == "numpy" and module.layer != NUMPY_LAYER:
        return "numpy lives in the engine alone"
    if _is_pure(module) and any(_inside(name, impure) for impure in IMPURE):
        return "this module is pure"
    if top != PACKAGE:
        return None
    for target, layer in ONLY.items():
        own = module.layer == target.split(".")[1]
        if _inside(name, target) and module.layer not in (layer, "__main__") and not own:
            return f"only {layer} imports it"
    target_layer = Module(name, "").layer
    # `from proxmox_cpu_affinity import __version__`, and the name of any attribute behind it.
    known = target_layer in ROWS or target_layer == ""
    return _row_fault(module.layer, target_layer) if known and target_layer else None


def function_lengths(module: Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(module.text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{module.name}.{node.name}", node.end_lineno - node.lineno + 1


MODULES = modules()


def by_name(module: Module) -> str:
    return module.name


@pytest.mark.parametrize("module", MODULES, ids=by_name)
def test_imports_go_down_the_rows_only(module: Module) -> None:
    assert import_faults(module) == []


@pytest.mark.parametrize("module", MODULES, ids=by_name)
def test_modules_and_functions_stay_small(module: Module) -> None:
    assert len(module.text.splitlines()) <= MODULE_LINES
    assert [f for f in function_lengths(module) if f[1] > FUNCTION_LINES] == []


@pytest.mark.parametrize("module", MODULES, ids=by_name)
def test_modules_are_named_for_what_they_are(module: Module) -> None:
    assert not VAGUE & set(module.name.split("."))


@pytest.mark.parametrize("module", MODULES, ids=by_name)
def test_modules_say_what_they_are_for(module: Module) -> None:
    assert ast.get_docstring(ast.parse(module.text))


def test_every_module_belongs_to_a_row() -> None:
    layers = {module.layer for module in MODULES} - {"", "__main__"}
    assert layers <= set(ROWS)
    assert {"model", "formats", "engine", "reconcile", "ports", "store"} <= layers
    names = {module.name for module in MODULES}
    assert set(PURE_MODULES) <= names
    assert all(any(_inside(name, target) for name in names) for target in ONLY)


# -- the walker itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.x", "from proxmox_cpu_affinity.formats import sysfs"),
        ("formats.x", "import proxmox_cpu_affinity.engine.place"),
        ("formats.x", "from proxmox_cpu_affinity import engine"),
        ("engine.x", "from proxmox_cpu_affinity.reconcile.state import State"),
        ("reconcile.x", "def f():\n    from proxmox_cpu_affinity.linux import tree"),
        ("linux.x", "from proxmox_cpu_affinity.pve import guests"),
        ("render.x", "from proxmox_cpu_affinity.service import app"),
        ("service.x", "from proxmox_cpu_affinity.cli import main"),
        ("service.x", "from proxmox_cpu_affinity.sim.hosts import generate"),
        ("service.x", "from proxmox_cpu_affinity.pve import qm"),
        ("service.x", "from proxmox_cpu_affinity.pve.qm import run"),
        ("sim.x", "import proxmox_cpu_affinity.pve.qm"),
        ("sim.x", "from proxmox_cpu_affinity.service import app"),
        ("sim.x", "from proxmox_cpu_affinity.cli.ui import Ui"),
        ("store", "from proxmox_cpu_affinity.render import grid"),
        ("model.x", "import os"),
        ("formats.x", "import os.path"),
        ("engine.x", "from time import monotonic"),
        ("reconcile.x", "import logging.handlers"),
        ("ports", "from pathlib import Path"),
        ("latency.schedule", "import random"),
        ("formats.x", "from urllib import request"),
        ("reconcile.x", "from datetime import datetime"),
        ("latency.cache", "if True:\n    import asyncio"),
        ("latency.probe", "import numpy as np"),
        ("reconcile.x", "from numpy import array"),
        ("service.x", "from numpy.typing import NDArray"),
        ("engine.x", "from . import facts"),
        ("engine.x", "from ..model import cpuset"),
    ],
)
def test_the_walker_catches(name: str, text: str) -> None:
    assert import_faults(Module(f"{PACKAGE}.{name}", f"X = 1\n{text}\n"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.x", "from proxmox_cpu_affinity.model import cpuset"),
        ("engine.x", "import numpy as np\nfrom proxmox_cpu_affinity.formats import sysfs"),
        ("linux.x", "import os, time\nfrom proxmox_cpu_affinity.ports import Loaded"),
        ("latency.probe", "import asyncio\nfrom proxmox_cpu_affinity.linux import tree"),
        ("pve.x", "from proxmox_cpu_affinity.pve import qm"),
        ("cli.x", "from proxmox_cpu_affinity.pve import qm\nfrom proxmox_cpu_affinity import sim"),
        ("cli.x", "from proxmox_cpu_affinity.sim.hosts import generate"),
        ("sim.x", "from proxmox_cpu_affinity.linux.tree import Tree"),
        ("service.x", "from proxmox_cpu_affinity import __version__"),
        ("formats.x", "from proxmox_cpu_affinity.model.ids import os_index"),
        ("formats.x", "from urllib.parse import unquote_to_bytes"),
    ],
)
def test_the_walker_lets_pass(name: str, text: str) -> None:
    assert import_faults(Module(f"{PACKAGE}.{name}", text)) == []


def test_the_walker_measures_functions_and_methods() -> None:
    body = "\n".join("        pass" for _ in range(70))
    text = f"class A:\n    async def long(self):\n{body}\n\ndef short():\n    return 1\n"
    lengths = dict(function_lengths(Module("m", text)))
    assert lengths == {"m.long": 71, "m.short": 2}
