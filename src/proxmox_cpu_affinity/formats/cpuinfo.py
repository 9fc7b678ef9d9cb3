"""What /proc/cpuinfo says of the first processor: model, microcode, whether it is virtual.

Its numbers of cores and packages are left alone: sysfs says the same for every CPU.
"""

from dataclasses import dataclass

CPUINFO = "proc/cpuinfo"
HEAD = 16384  # bytes that hold the first processor; all of it is 1 MiB on 512 CPUs
_KEPT = ("model name", "microcode", "CPU implementer", "CPU part")


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """The processor model of a host; empty texts where the kernel does not say."""

    model_name: str = ""
    microcode: str = ""
    hypervisor: bool = False  # the CPU tells that it runs under a hypervisor


def parse(text: str) -> CpuInfo:
    """The first processor's facts; hosts with two models in one box do not exist on x86."""
    fields = _first_block(text)
    model = " ".join(fields.get("model name", "").split())
    if not model and "CPU part" in fields:  # ARM kernels name only the numbers of MIDR_EL1
        model = f"ARM implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}"
    return CpuInfo(model, fields.get("microcode", ""), _hypervisor(fields))


def reduced(text: str) -> str:
    """The lines that `parse` needs, in cpuinfo's own form: the rest changes every second."""
    fields = _first_block(text)
    lines = [f"{key}\t: {fields[key]}" for key in _KEPT if key in fields]
    if _hypervisor(fields):
        lines.append("flags\t: hypervisor")
    return "\n".join(lines)


def _first_block(text: str) -> dict[str, str]:
    block = text.strip().partition("\n\n")[0]
    parts = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, colon, value in parts if colon}


def _hypervisor(fields: dict[str, str]) -> bool:
    return "hypervisor" in fields.get("flags", "").split()
