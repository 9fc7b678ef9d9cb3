"""The service program: arguments, settings, signals, the order of start and stop."""

import argparse
import asyncio
import fcntl
import ipaddress
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from proxmox_cpu_affinity import __version__
from proxmox_cpu_affinity.formats.settings import AT_START, Settings, settings
from proxmox_cpu_affinity.linux import workers
from proxmox_cpu_affinity.linux.dropins import DropIns
from proxmox_cpu_affinity.linux.notify import notify, stay_alive
from proxmox_cpu_affinity.model.errors import AffinityError, SettingError
from proxmox_cpu_affinity.service import log as logging
from proxmox_cpu_affinity.service.log import log
from proxmox_cpu_affinity.service.paths import SETTINGS, Paths

if TYPE_CHECKING:  # aiohttp and numpy are imported when they are needed, after the arguments
    from proxmox_cpu_affinity.service.app import Service
    from proxmox_cpu_affinity.service.http import Listeners

FIRST_SCAN_US = 60_000_000  # microseconds for the first look at systemd and the guests
_EXAMPLE = """example:
  proxmox-cpu-affinity-service --stdout --log-level debug
"""


class AlreadyRunningError(AffinityError):
    """A second service on the same root."""

    code = "already-running"


class StillHeldError(AffinityError):
    """Guests that could not be let go."""

    code = "still-held"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The flags; those of the Go project are taken with one dash too."""
    parser = argparse.ArgumentParser(
        prog="proxmox-cpu-affinity-service",
        description="Gives every guest of this node the CPUs that suit it best.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def flag(name: str, text: str, metavar: str | None = None) -> None:
        names = (f"--{name}", f"-{name}")
        if metavar is None:
            parser.add_argument(*names, action="store_true", help=text)
        else:
            parser.add_argument(*names, metavar=metavar, help=text)

    flag("config", "the settings file", "FILE")
    flag("socket", "a further Unix socket (PCA_SOCKET_FILE)", "PATH")
    flag("host", "the address to listen on (PCA_HOST)", "ADDRESS")
    flag("port", "the port to listen on (PCA_PORT)", "PORT")
    flag("insecure-allow-remote", "allow another address than loopback")
    flag("log-file", "the log file (PCA_LOG_FILE)", "FILE")
    flag("log-level", "debug, info, notice, warn or error (PCA_LOG_LEVEL)", "LEVEL")
    flag("stdout", "log to the screen only")
    flag("disable-cpu-hotplug-watchdog", "do not follow CPUs that come and go")
    flag("check-settings", "say whether the settings can be used, then end")
    flag("release", "let all guests go, then end")
    flag("clean-dropins", "delete the drop-ins of starts under way, then end (for ExecStopPost)")
    parser.add_argument("--root", metavar="DIR", help="the root that everything hangs below")
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args(argv)


def read_settings(given: argparse.Namespace, paths: Paths) -> tuple[Settings, tuple[str, ...]]:
    """File, environment and flags; later ones win. SettingError."""
    file = Path(given.config) if given.config else paths.settings
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        if given.config:
            raise SettingError(f"{file} does not exist") from None
        text = ""
    except OSError as error:
        raise SettingError(f"{file.name} cannot be read: {error.strerror}") from None
    environment = dict(os.environ)
    flags = {
        "PCA_SOCKET_FILE": given.socket,
        "PCA_HOST": given.host,
        "PCA_PORT": given.port,
        "PCA_LOG_FILE": given.log_file,
        "PCA_LOG_LEVEL": given.log_level,
        "PCA_INSECURE_ALLOW_REMOTE": "true" if given.insecure_allow_remote else None,
        "PCA_CPU_HOTPLUG_WATCHDOG": "false" if given.disable_cpu_hotplug_watchdog else None,
    }
    environment.update({name: value for name, value in flags.items() if value is not None})
    shown = str(file) if given.config else f"/{SETTINGS}"
    found, warnings = settings(text, environment, file=shown)
    if not (found.insecure_allow_remote or _loopback(found.host)):
        raise SettingError(
            f"PCA_HOST={found.host} is not a loopback address",
            hint="set PCA_INSECURE_ALLOW_REMOTE=true if the whole network may read",
        )
    return found, warnings


def _settings_for(given: argparse.Namespace, paths: Paths) -> tuple[Settings, tuple[str, ...]]:
    """SettingError, but not to let guests go: that needs none, and a removal has no second try."""
    try:
        return read_settings(given, paths)
    except SettingError as error:
        if not given.release:
            raise
        return Settings(), (f"{error.text}: guests are let go all the same",)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def alone(paths: Paths) -> int:
    """A lock that lasts as long as this process. AlreadyRunningError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(paths.lock, flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(handle, 32, 0).decode(errors="replace").strip()
        os.close(handle)
        hint = "systemctl status proxmox-cpu-affinity" if paths.real else f"end it with: kill {pid}"
        raise AlreadyRunningError("another service runs on this node", hint=hint) from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())  # for people, and for those who end us
    return handle


def forget_unfinished(paths: Paths) -> None:
    """Delete the files that an earlier life was killed over: who has the lock writes none now."""
    for file in paths.lib.glob("*.new"):
        with suppress(OSError):
            file.unlink()


async def serve(
    given: argparse.Namespace, paths: Paths, current: Settings, warnings: tuple[str, ...]
) -> None:
    """From the first answer to the last."""
    from proxmox_cpu_affinity.service.access import Access, keep_token
    from proxmox_cpu_affinity.service.api import Api
    from proxmox_cpu_affinity.service.app import Service
    from proxmox_cpu_affinity.service.http import Listeners, application
    from proxmox_cpu_affinity.service.world import world_below

    service = Service(world_below(paths), current, warnings=warnings)
    service.prepare()
    node = os.uname().nodename.partition(".")[0]
    access = Access(keep_token(paths.token), current.host, current.insecure_allow_remote, node)
    listeners = Listeners(application(Api(service), access))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(given, paths, service))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        await listeners.open()
        await listeners.unix(paths.socket)
        await _listen_further(listeners, paths, current)
        page = await _listen_tcp(listeners, paths, current)
        notify(f"EXTEND_TIMEOUT_USEC={FIRST_SCAN_US}")  # a busy systemd may take its time to answer
        await service.start()
        alive = loop.create_task(stay_alive())
        notify("READY=1\nSTATUS=answering")
        log.info("service %s answers%s", __version__, page and f"; its page is {page}")
        await ended.wait()
        alive.cancel()
    finally:
        notify("STOPPING=1")
        service.herald.stream.close()  # else the listeners would wait for who reads it
        await listeners.close()
        await service.stop()
        log.info("service ends; guests keep their CPUs")


async def _listen_further(listeners: "Listeners", paths: Paths, current: Settings) -> None:
    """PCA_SOCKET_FILE. Where that cannot be, it costs this socket, not the service."""
    if current.socket_file is None:
        return
    try:
        await listeners.unix(paths.at(current.socket_file))
    except OSError as error:
        log.warning("PCA_SOCKET_FILE=%s is not served: %s", current.socket_file, error)


async def _listen_tcp(listeners: "Listeners", paths: Paths, current: Settings) -> str:
    """The page's address. A port that is taken costs the TCP listener, not the service: hooks use
    the socket; then there is none."""
    try:
        port = await listeners.tcp(current.host, current.port)
    except OSError as error:
        log.warning("%s:%s: %s; only the socket is served", current.host, current.port, error)
        paths.port.unlink(missing_ok=True)
        return ""
    paths.port.unlink(missing_ok=True)  # a link there is replaced, not followed
    paths.port.write_text(f"{port}\n", encoding="ascii")
    paths.port.chmod(0o644)  # no secret, whatever the umask of the unit
    host = f"[{current.host}]" if ":" in current.host else current.host
    return f"http://{host}:{port}/"


async def _reload(given: argparse.Namespace, paths: Paths, service: "Service") -> None:
    """SIGHUP: a new log file, and the settings anew; bad ones change nothing."""
    try:
        fresh, warnings = read_settings(given, paths)
    except SettingError as error:
        logging.reopen(service.settings.log_level)
        log.error("%s: the settings in force stay", error.text)
        return
    logging.reopen(fresh.log_level)
    for warning in warnings:
        log.warning("%s", warning)
    old = service.settings
    for name in AT_START:
        if getattr(old, name) != getattr(fresh, name):
            log.warning("PCA_%s takes effect at the next start of the service", name.upper())
    try:
        await service.use(fresh, warnings)
    except Exception as error:
        logging.failed("not all that follows from the settings is done yet", error)
    log.info("settings read again")


async def release(paths: Paths, current: Settings) -> None:
    """Let go of all guests without a running service. StillHeldError."""
    from proxmox_cpu_affinity.service.app import Service
    from proxmox_cpu_affinity.service.world import world_below

    service = Service(world_below(paths), current)
    service.prepare()
    await service.scoping.begin_release()
    kept = await service.release_all()
    await service.stop()
    if kept:
        raise StillHeldError(f"not let go: VM {', '.join(map(str, kept))}")


async def _lived(
    given: argparse.Namespace, paths: Paths, current: Settings, warnings: tuple[str, ...]
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logging.met)
    loop.set_default_executor(workers.Workers())
    await (release(paths, current) if given.release else serve(given, paths, current, warnings))


def run(argv: Sequence[str]) -> int:
    given = arguments(argv)
    paths = Paths(Path(given.root or os.environ.get("PCA_ROOT") or "/").resolve())
    if given.clean_dropins:
        DropIns(paths.root).clean()
        return 0
    current, warnings = _settings_for(given, paths)
    if given.check_settings:
        return 0
    for folder, mode in ((paths.run, 0o755), (paths.lib, 0o700)):
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    log_file = None if given.stdout else paths.at(current.log_file)
    logging.set_up(current.log_level, log_file)
    for warning in warnings:
        log.warning("%s", warning)
    lock = alone(paths)
    forget_unfinished(paths)
    try:
        workers.run(_lived(given, paths, current, warnings))
    finally:
        os.close(lock)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 after SIGTERM, 78 for settings that cannot be used, 1 for anything else."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a thread for each CPU
    try:
        return run(sys.argv[1:] if argv is None else argv)
    except AffinityError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"proxmox-cpu-affinity-service: {error.text}{hint}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    except OSError as error:
        print(f"proxmox-cpu-affinity-service: {error}", file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
