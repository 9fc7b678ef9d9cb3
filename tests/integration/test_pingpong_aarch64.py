"""The measuring program on the other architecture: cross-built, and run under qemu-user."""

import shutil
import subprocess
from pathlib import Path

import pytest

from proxmox_cpu_affinity.latency import program as program_module
from proxmox_cpu_affinity.latency.protocol import (
    VERSION,
    Failed,
    Greeting,
    Parameters,
    Ran,
    Sampled,
    parse,
)
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.model.latency import Method

SOURCE = Path(program_module.__file__).parent
CC, QEMU = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
CPUS = tuple(own_cpus())

pytestmark = [
    pytest.mark.skipif(
        CC is None, reason="no aarch64-linux-gnu-gcc (gcc-aarch64-linux-gnu, libc6-dev-arm64-cross)"
    ),
    pytest.mark.skipif(QEMU is None, reason="no qemu-aarch64 (apt install qemu-user)"),
    pytest.mark.skipif(len(CPUS) < 2, reason="only one CPU: there is no pair to measure"),
]


@pytest.fixture(scope="module", params=["", "-DPP_PLAIN"])
def pingpong(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Static, so that no library of that architecture is needed to run it."""
    program = tmp_path_factory.mktemp("aarch64") / "pingpong"
    sources = [str(SOURCE / name) for name in ("duel.c", "pingpong.c", "pool.c", "main.c")]
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-static"]
    extra = [flag for flag in [str(request.param)] if flag]
    assert CC is not None
    subprocess.run([CC, *flags, *extra, "-o", str(program), *sources], check=True, timeout=120)
    return program


@pytest.mark.parametrize("method", list(Method))
def test_a_pair_is_measured_under_emulation(pingpong: Path, method: Method) -> None:
    first, second = CPUS[:2]
    parameters = Parameters(method, patience_ms=60_000)
    order = parameters.order([[(first, second)], [(first, first)]])
    assert QEMU is not None
    done = subprocess.run(
        [QEMU, str(pingpong)],
        input=parameters.text() + order,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    greeting, sampled, failed, ran = map(parse, done.stdout.splitlines())
    assert greeting == Greeting(VERSION)
    assert isinstance(sampled, Sampled), done.stdout
    assert len(sampled.batches) >= parameters.batches_min
    assert max(batch.ns for batch in sampled.batches) > 0
    assert failed == Failed((first, first), "EINVAL")
    assert ran == Ran(2)
