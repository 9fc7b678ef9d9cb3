"""One target under atheris: `python -m tests.fuzz.child NAME [libFuzzer's options and folders]`."""

import sys

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]


def main(arguments: list[str]) -> None:
    name, *rest = arguments
    with atheris.instrument_imports(include=["proxmox_cpu_affinity"]):
        from tests.fuzz.targets import TARGETS, attempt
    target = TARGETS[name]

    def one(data: bytes) -> None:
        attempt(target, data)

    atheris.Setup([sys.argv[0], *rest], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
