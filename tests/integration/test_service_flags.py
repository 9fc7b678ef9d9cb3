"""The service program's flags, with one dash as they were and with two, and its log's lines."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from proxmox_cpu_affinity.formats.settings import LogLevel
from proxmox_cpu_affinity.service.main import arguments, read_settings
from proxmox_cpu_affinity.service.paths import Paths
from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, add_guest

DASHES = pytest.mark.parametrize("dash", ["-", "--"])


@DASHES
@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["socket", "/run/x.sock"], "socket_file", "/run/x.sock"),
        (["log-file", "/var/log/x"], "log_file", "/var/log/x"),
        (["log-level", "debug"], "log_level", LogLevel.DEBUG),
        (["disable-cpu-hotplug-watchdog"], "hotplug_watchdog", False),
        (["host", "127.0.0.2"], "host", "127.0.0.2"),
        (["port", "9999"], "port", 9999),
        (["insecure-allow-remote"], "insecure_allow_remote", True),
    ],
)
def test_a_flag_sets_what_its_setting_does_and_wins(
    dash: str, words: list[str], field: str, value: object, tmp_path: Path
) -> None:
    name, *rest = words
    found, warnings = read_settings(arguments([dash + name, *rest]), Paths(tmp_path))
    plain, _ = read_settings(arguments([]), Paths(tmp_path))
    assert asdict(found) == {**asdict(plain), field: value}
    assert warnings == ()


@DASHES
def test_another_settings_file_and_the_screen(dash: str, tmp_path: Path) -> None:
    file = tmp_path / "other"
    file.write_text("PCA_STRATEGY=round-robin\n")
    given = arguments([f"{dash}config", str(file), f"{dash}stdout"])
    assert given.stdout is True
    assert read_settings(given, Paths(tmp_path))[0].strategy == "round-robin"


@DASHES
def test_the_service_runs_with_them(dash: str, sim_node: Node) -> None:
    hookscript.install(sim_node)
    flags = [f"{dash}log-file", "/var/log/own.log", f"{dash}log-level", "debug"]
    with Running(sim_node, *flags, f"{dash}socket", "/run/own.sock") as service:
        add_guest(sim_node, 100)
        sim_node.do("start", 100)
        assert sim_node.path("/run/own.sock").is_socket()
        log = sim_node.path("/var/log/own.log")
        assert log.stat().st_mode & 0o777 == 0o600
        lines = log.read_text().splitlines()
        form = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[(DEBUG|INFO|NOTICE|WARN|ERROR)\] \S.*"
        assert all(re.fullmatch(form, line) for line in lines), lines
        assert any(line.endswith(" vmid=100") for line in lines)
        assert service.end() == 0


@DASHES
def test_on_the_screen_there_is_no_file(dash: str, sim_node: Node) -> None:
    with Running(sim_node, f"{dash}stdout") as service:
        service.says("answers")
    assert not sim_node.path("/var/log/proxmox-cpu-affinity.log").exists()


@pytest.mark.parametrize("kind", ["no-folder", "file"])
def test_a_further_socket_that_cannot_be_costs_itself_only(kind: str, sim_node: Node) -> None:
    """The service ended, and systemd started it again and again: no guest was placed."""
    path = "/run/nowhere/x.sock" if kind == "no-folder" else "/run/x.sock"
    if kind == "file":
        sim_node.path(path).write_text("")
    with Running(sim_node, settings=f"PCA_SOCKET_FILE={path}\n") as service:
        service.says(f"PCA_SOCKET_FILE={path} is not served")
        assert service.answers()
