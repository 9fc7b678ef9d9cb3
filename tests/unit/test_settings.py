"""The settings file and the environment: every name, every refusal, every warning."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats.settings import (
    OLD_SOCKETS,
    SETTINGS,
    Assignment,
    LogLevel,
    Settings,
    assignments,
    settings,
)
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SettingError
from proxmox_cpu_affinity.model.guest import Manage
from proxmox_cpu_affinity.model.placement import (
    Fallback,
    Rebalance,
    Strategy,
    Weights,
    Widen,
    Widening,
    Width,
)

FILE = "/etc/default/proxmox-cpu-affinity"
SHIPPED = Path(__file__).parents[2] / "scripts" / "proxmox-cpu-affinity.default"

# Every name that does something: the value given, the field it sets, the value read, and bad ones.
KNOWN: tuple[tuple[str, str, str, object, tuple[str, ...]], ...] = (
    ("PCA_MANAGE", "all", "manage", Manage.ALL, ("", "none", "ALL", "tag,hook")),
    ("PCA_STRATEGY", "round-robin", "strategy", Strategy.ROUND_ROBIN, ("", "roundrobin", "random")),
    ("PCA_RESERVED_CPUS", "0-1,8", "reserved", CpuSet.parse("0-1,8"), ("8-0", "0-31:2/8", "all")),
    (
        "PCA_MEASURE_CORES",
        "50%",
        "measure_share",
        0.5,
        ("50", "0%", "101%", "12.5%", "-1%", "%", "٣%"),
    ),
    ("PCA_DEDICATED_FALLBACK", "shared", "dedicated_fallback", Fallback.SHARED, ("", "none")),
    ("PCA_MOVE_MEMORY", "on", "move_memory", True, ("", "true", "ON", "1")),
    ("PCA_WIDTH", "domain", "width", Width.DOMAIN, ("", "wide")),
    ("PCA_WIDEN", "pressure", "widening.when", Widen.PRESSURE, ("", "on", "PRESSURE")),
    (
        "PCA_WIDEN_ABOVE",
        "7.5%",
        "widening.above",
        0.075,
        ("", "2", "0%", "0.0%", "101%", "-2%", "2,5%"),
    ),
    ("PCA_WIDEN_BELOW", "1%", "widening.below", 0.01, ("", "0.01", "0%", "0.0001%")),
    ("PCA_WIDEN_STAY", "90", "widening.stay", 90, ("", "0", "3601", "1.5", "1m")),
    ("PCA_REBALANCE", "on", "rebalance", Rebalance.ON, ("", "yes")),
    ("PCA_ROUNDS", "3", "rounds", 3, ("0", "-1", "1.5", "10001", "many", "٣")),
    ("PCA_ITERATIONS", "5000", "iterations", 5000, ("0", "10000001", "1e4", "0x10")),
    ("PCA_CPU_HOTPLUG_WATCHDOG", "f", "hotplug_watchdog", False, ("", "no", "off", "fALSE", "2")),
    ("PCA_HOST", "::1", "host", "::1", ("", "a host", "127.0.0.1/8", "x" * 254)),
    ("PCA_PORT", "0", "port", 0, ("", "65536", "-1", "http", "8245 ", "99999999999")),
    ("PCA_INSECURE_ALLOW_REMOTE", "T", "insecure_allow_remote", True, ("", "yes", "TrUe")),
    ("PCA_SOCKET_FILE", "/run/x.sock", "socket_file", "/run/x.sock", ("run/x.sock", "/a\0b")),
    ("PCA_LOG_LEVEL", "warn", "log_level", LogLevel.WARN, ("", "WARN", "warning", "trace")),
    ("PCA_LOG_FILE", "/var/log/x.log", "log_file", "/var/log/x.log", ("", "x.log", "-")),
)
WEIGHTS = (
    ("PCA_WEIGHT_THREAD", "thread"),
    ("PCA_WEIGHT_SMT_CROSS", "smt_cross"),
    ("PCA_WEIGHT_SMT_OWN", "smt_own"),
    ("PCA_WEIGHT_LAT_NS", "lat_ns"),
    ("PCA_WEIGHT_ECORE", "ecore"),
)
BAD_WEIGHTS = ("", "-0.1", "1000.1", "1e3", "nan", "inf", "0,25", "25%", "1.", "0.0000000001")
# GO.md's list of settings that have nothing to set here any more.
DEAD = tuple(
    f"PCA_{way}_{what}"
    for way in ("SOCKET", "WEBHOOK")
    for what in ("RETRY", "SLEEP", "TIMEOUT", "PING_ON_PRESTART")
)
BAD = [(name, bad) for name, _, _, _, values in KNOWN for bad in values]
BAD += [(name, bad) for name, _ in WEIGHTS for bad in BAD_WEIGHTS]


def read(text: str, **environment: str) -> tuple[Settings, tuple[str, ...]]:
    return settings(text, environment, file=FILE)


def test_nothing_given_is_all_defaults() -> None:
    assert read("") == (Settings(), ())


def test_table_and_this_test_know_the_same_names() -> None:
    named = {name for name, *_ in KNOWN} | {name for name, _ in WEIGHTS}
    assert {setting.name for setting in SETTINGS} == named
    targets = [setting.target for setting in SETTINGS]
    assert len(set(targets)) == len(targets)
    plain = {field.name for field in fields(Settings)} - {"weights", "widening"}
    weights = {f"weights.{field.name}" for field in fields(Weights)}
    widening = {f"widening.{field.name}" for field in fields(Widening)}
    assert set(targets) == plain | weights | widening


def with_field(target: str, value: object) -> Settings:
    """The defaults with one field set; `widening.above`: one of a group."""
    group, _, name = target.rpartition(".")
    if group:
        value, name = replace(getattr(Settings(), group), **{name: value}), group
    return replace(Settings(), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "given", "target", "value"), [row[:4] for row in KNOWN])
def test_every_name_sets_its_field(name: str, given: str, target: str, value: object) -> None:
    expected = with_field(target, value)
    assert expected != Settings()
    assert read(f"{name}={given}\n") == (expected, ())
    assert read("", **{name: given}) == (expected, ())


@pytest.mark.parametrize(("name", "target"), WEIGHTS)
@pytest.mark.parametrize(
    ("given", "value"), [("0", 0.0), ("0.45", 0.45), (".5", 0.5), ("1000", 1e3)]
)
def test_every_weight_sets_its_field(name: str, target: str, given: str, value: float) -> None:
    expected = with_field(f"weights.{target}", value)
    assert read(f"{name}={given}") == (expected, ())


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_booleans_that_are_true(text: str) -> None:
    assert read(f"PCA_INSECURE_ALLOW_REMOTE={text}")[0].insecure_allow_remote


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_booleans_that_are_false(text: str) -> None:
    assert not read(f"PCA_CPU_HOTPLUG_WATCHDOG={text}")[0].hotplug_watchdog


@pytest.mark.parametrize(("name", "bad"), BAD)
def test_bad_value_names_line_name_and_what_is_allowed(name: str, bad: str) -> None:
    allowed = {setting.name: setting.allowed for setting in SETTINGS}[name]
    with pytest.raises(SettingError) as caught:
        read(f"# a comment\n\n{name}='{bad}'\n")
    assert caught.value.text.startswith(f"{FILE}, line 3: {name}=")
    assert caught.value.text.endswith(f" must be {allowed}")
    assert caught.value.exit_status == 78
    with pytest.raises(SettingError) as caught:
        read("", **{name: bad})
    assert caught.value.text.startswith(f"environment: {name}=")


def test_a_long_bad_value_is_cut() -> None:
    with pytest.raises(SettingError) as caught:
        read("PCA_PORT=" + 5000 * "9")
    assert len(caught.value.text) < 250


# -- lines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("X=plain", "plain"),
        ("X=", ""),
        ("X=''", ""),
        ('X="quoted"', "quoted"),
        ("X='with blanks and # no comment'", "with blanks and # no comment"),
        ("X=value # a comment", "value"),
        ("X=value\t#a comment", "value"),
        ("X= # a comment behind no value", ""),
        ("X=a#b", "a#b"),
        ('X="quoted" # a comment', "quoted"),
        ("  X=indented  ", "indented"),
        ("export X=exported", "exported"),
        ("export\t X=exported", "exported"),
        ("X=a=b", "a=b"),
        ("X='a\"b'", 'a"b'),
        ("X=windows\r", "windows"),
        ("X='windows'\r", "windows"),
    ],
)
def test_values_as_a_shell_would_read_them(line: str, value: str) -> None:
    assert assignments(f"{line}\n", file=FILE) == (Assignment("X", value, f"{FILE}, line 1"),)


@pytest.mark.parametrize("line", ["", "   ", "# X=1", "\t# X=1", ";X=1", "\r", "#"])
def test_blank_lines_and_comments_are_nothing(line: str) -> None:
    assert assignments(f"{line}\n{line}", file=FILE) == ()


def test_lines_are_counted_over_comments_and_crlf() -> None:
    text = "# one\r\n\r\nA=1\r\n; four\r\nexport B='2'\r\n"
    assert assignments(text, file="f") == (
        Assignment("A", "1", "f, line 3"),
        Assignment("B", "2", "f, line 5"),
    )


@pytest.mark.parametrize(
    "line",
    [
        "PCA_PORT",
        "PCA_PORT 8245",
        "PCA_PORT = 8245",
        "=8245",
        "1X=2",
        "PCA-PORT=1",
        "export",
        "exportX =1",
        "[section]",
        "X='open",
        'X="open',
        "X='",
        "X='closed' and more",
        "X=\"mixed'",
    ],
)
def test_a_line_that_is_none_names_itself(line: str) -> None:
    with pytest.raises(SettingError) as caught:
        read(f"A=1\n{line}\n")
    assert f"{FILE}, line 2" in caught.value.text


def test_the_last_line_of_a_name_wins() -> None:
    assert read("PCA_PORT=1\nPCA_PORT=2\n")[0].port == 2


@hypothesis_settings(deadline=None)
@given(text=st.text(alphabet="PCA_ORT=\"'# \t\r\n;81x\0é", max_size=60))
def test_any_text_is_settings_or_a_located_error(text: str) -> None:
    said = f"{FILE}, line 1: fine"
    try:
        read(text)
    except SettingError as error:
        said = error.text
    assert re.match(rf"{FILE}, line [0-9]+: ", said)


# -- the environment -------------------------------------------------------------------------------


def test_environment_wins_also_over_a_bad_value() -> None:
    assert read("PCA_PORT=1\n", PCA_PORT="2")[0].port == 2
    assert read("PCA_PORT=rubbish\n", PCA_PORT="2") == (replace(Settings(), port=2), ())


def test_environment_of_others_is_not_ours() -> None:
    assert read("", PATH="/bin", pca_port="1", XPCA_PORT="1") == (Settings(), ())


def test_places_are_no_settings() -> None:
    assert read("", PCA_ROOT="/x", PCA_PINGPONG="/x/pingpong") == (Settings(), ())


# -- warnings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEAD)
def test_dead_names_are_taken_with_one_warning_each(name: str) -> None:
    found, warnings = read(f"{name}=10\n{name}=rubbish\n", **{name: "5"})
    assert found == Settings()
    assert len(warnings) == 1
    assert name in warnings[0]


def test_dead_names_together_warn_once_each() -> None:
    _, warnings = read("".join(f"{name}=1\n" for name in DEAD))
    assert len(warnings) == len(DEAD)
    assert all(sum(name in line for line in warnings) == 1 for name in DEAD)


def test_a_guest_cannot_be_above_and_below_at_once() -> None:
    with pytest.raises(SettingError, match=r"line 1: PCA_WIDEN_BELOW must be less than PCA_WIDEN"):
        read("PCA_WIDEN_ABOVE=0.5%\n")
    with pytest.raises(SettingError, match=r"line 2: PCA_WIDEN_BELOW must be less than PCA_WIDEN"):
        read("PCA_WIDEN_ABOVE=4%\nPCA_WIDEN_BELOW=5%\n")
    found, _ = read("PCA_WIDEN_ABOVE=8%\nPCA_WIDEN_BELOW=5%\n")
    assert (found.widening.above, found.widening.below) == (0.08, 0.05)


def test_unknown_names_are_warned_about_where_they_stand() -> None:
    found, warnings = read("PCA_PROT=1\nFOO=2\n", PCA_HOTS="x")
    assert found == Settings()
    assert warnings == (
        f"{FILE}, line 2: unknown setting FOO: ignored",
        "environment: unknown setting PCA_HOTS: ignored",
        f"{FILE}, line 1: unknown setting PCA_PROT: ignored",
    )


@pytest.mark.parametrize("path", OLD_SOCKETS)
def test_the_go_projects_socket_is_ignored_with_a_warning(path: str) -> None:
    found, warnings = read(f"PCA_SOCKET_FILE={path}\n")
    assert found == Settings()
    assert len(warnings) == 1
    assert f"{FILE}, line 1: PCA_SOCKET_FILE" in warnings[0]


# -- the file we ship ------------------------------------------------------------------------------


def _shipped() -> list[tuple[str, str]]:
    """Every commented assignment of the file we ship."""
    return re.findall(r"^#([A-Z_]+)=(.*)$", SHIPPED.read_text(), re.M)


def test_shipped_file_sets_nothing_and_names_every_setting() -> None:
    assert read(SHIPPED.read_text()) == (Settings(), ())
    assert [name for name, _ in _shipped()].count("PCA_MANAGE") == 1
    assert {name for name, _ in _shipped()} == {setting.name for setting in SETTINGS}


def test_shipped_values_are_the_defaults() -> None:
    given = "".join(f"{name}={value}\n" for name, value in _shipped() if value)
    assert read(given) == (Settings(), ())


@pytest.mark.parametrize("name", ["PCA_ROUNDS", "PCA_ITERATIONS", "PCA_SOCKET_FILE"])
def test_shipped_empty_values_may_be_uncommented(name: str) -> None:
    assert (name, "") in _shipped()
    assert read(f"{name}=\n") == (Settings(), ())


def test_each_shipped_setting_is_explained() -> None:
    """Its own comment stands right above it."""
    lines = SHIPPED.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("#PCA_"):
            assert lines[number - 1].startswith("# "), line
