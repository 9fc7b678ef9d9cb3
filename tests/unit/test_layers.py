"""The house rules that a machine can keep: who imports whom, and how large things may grow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "proxmox_cpu_affinity"
PACKAGE = "proxmox_cpu_affinity"
ROWS = (
    ("model",),
    ("formats",),
    ("engine",),
    ("reconcile",),
    ("ports",),
    ("linux",),
    ("pve",),
    ("latency",),
    ("store",),
    ("render",),
    ("service",),
    ("cli",),
    ("sim",),
)
ROW = {name: number for number, row in enumerate(ROWS) for name in row}
PURE = {"model", "formats", "engine", "reconcile"}
PURE_MODULES = {f"latency.{name}" for name in ("schedule", "predict", "protocol", "judge", "cache")}
IMPURE = {
    *("os", "pathlib", "subprocess", "time", "random", "logging", "socket", "asyncio", "shutil"),
    *("tempfile", "threading", "signal", "select", "fcntl", "sys", "io", "glob", "http"),
}
ONLY_CLI = {"pve.qm", "sim"}
SAYS_NOTHING = {"util", "utils", "helper", "helpers", "common", "misc", "manager"}


def modules() -> Iterator[tuple[str, str]]:
    """Dotted names below the package, and their texts."""
    for file in sorted(SOURCE.rglob("*.py")):
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), file.read_text()


def imports(text: str) -> Iterator[str]:
    """Every absolute import of a module, `from a import b` as a.b (b may be a module)."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_imports(name: str, text: str) -> list[str]:
    """What a module imports against the rules."""
    layer = name.split(".", maxsplit=1)[0]
    found = []
    for target in imports(text):
        top = target.split(".")[0]
        if top == PACKAGE:
            inner = target.removeprefix(f"{PACKAGE}.")
            other = inner.split(".")[0]
            if other in ROW and layer in ROW and not _allowed(layer, name, inner, other):
                found.append(f"{name} imports {inner}")
        elif top == "numpy" and layer != "engine":
            found.append(f"{name} imports numpy")
        elif (top in IMPURE or target.startswith("urllib.request")) and (
            layer in PURE or name in PURE_MODULES
        ):
            found.append(f"{name} is pure and imports {target}")
    return found


def _allowed(layer: str, name: str, inner: str, other: str) -> bool:
    if any(inner == only or inner.startswith(f"{only}.") for only in ONLY_CLI):
        return layer in {"cli", other}
    if layer == "sim" and other in ("service", "cli"):
        return False
    return ROW[other] <= ROW[layer]


def test_a_layer_imports_only_from_rows_above_its_own() -> None:
    assert [wrong for name, text in modules() for wrong in wrong_imports(name, text)] == []


def test_every_package_has_its_row() -> None:
    tops = {name.split(".")[0] for name, _ in modules()} - {"__init__", "__main__", "proxmox"}
    assert tops <= set(ROW) | {""}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.ids", f"from {PACKAGE}.formats import sysfs"),
        ("formats.sysfs", "import os"),
        ("engine.price", "from time import monotonic"),
        ("reconcile.brain", "import logging"),
        ("latency.predict", "import subprocess"),
        ("service.app", f"from {PACKAGE}.pve import qm"),
        ("service.app", f"import {PACKAGE}.sim.node"),
        ("linux.tree", f"from {PACKAGE}.service.log import log"),
        ("service.views", "import numpy as np"),
        ("sim.node", f"from {PACKAGE}.cli import ui"),
    ],
)
def test_the_walker_catches_a_violation(name: str, text: str) -> None:
    assert wrong_imports(name, text)


def test_the_walker_lets_good_imports_pass() -> None:
    good = f"from {PACKAGE}.model.ids import Cpu\nimport re\nfrom {PACKAGE}.formats import sysfs"
    assert wrong_imports("linux.tree", good) == []
    assert wrong_imports("cli.commands.hookscript", f"from {PACKAGE}.pve import qm") == []


def test_no_module_grows_beyond_500_lines_and_none_has_an_empty_name() -> None:
    for name, text in modules():
        assert text.count("\n") <= 500, name
        assert name.split(".")[-1] not in SAYS_NOTHING, name


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{name}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for name, text in modules()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > 60
    ]
    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    for name, text in modules():
        assert ast.get_docstring(ast.parse(text)), name
