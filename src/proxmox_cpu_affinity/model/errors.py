"""The family of errors: each class has a stable code, an exit status, an HTTP status and a hint.

Text is made where the error arises, shown where a program ends (cli.main, service.main) or answers
(service.http); nothing in between catches to print. Partial success is not an error: see
placement.Outcome.
"""

from typing import ClassVar


class AffinityError(Exception):
    """Base of every error that may leave a module.

    `text` is one line saying what is wrong; `hint` is one line saying what to do about it.
    """

    code: ClassVar[str] = "internal-error"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    default_hint: ClassVar[str] = ""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint or self.default_hint


class UsageError(AffinityError):
    """The command's words do not fit together."""

    code = "usage"
    exit_status = 2
    http_status = 400


class BadRequestError(AffinityError):
    """A request to the API that cannot be read as what it should be."""

    code = "bad-request"
    http_status = 400


class SyntaxFault(AffinityError):
    """A text that is not of its syntax; `where` locates it (file, line or byte)."""

    code = "syntax"
    http_status = 400

    def __init__(self, text: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(f"{where}: {text}" if where else text, hint=hint)
        self.where = where


class SettingError(AffinityError):
    """A bad value of a known setting. The service refuses to start: exit status 78 (EX_CONFIG)."""

    code = "setting"
    exit_status = 78


class NotPveHostError(AffinityError):
    """This is no Proxmox VE node (no /etc/pve)."""

    code = "not-a-pve-host"
    http_status = 503
    default_hint = "run this on a Proxmox VE node, or try it on a simulated one: sim create DIR"


class GuestNotFoundError(AffinityError):
    """No guest with that VMID has its configuration on this node."""

    code = "guest-not-found"
    http_status = 404
    default_hint = "list the guests of this node with: qm list"


class NotFoundError(AffinityError):
    """The API has no such path."""

    code = "not-found"
    http_status = 404


class ForbiddenError(AffinityError):
    """The caller may not do this."""

    code = "forbidden"
    http_status = 403


class UnauthorizedError(AffinityError):
    """A write over TCP without the token."""

    code = "unauthorized"
    http_status = 401
    default_hint = "send the token of /run/proxmox-cpu-affinity/token as Bearer, or use the socket"


class TooLargeError(AffinityError):
    """A request body above the limit."""

    code = "too-large"
    http_status = 413


class RefusedError(AffinityError):
    """Understood, and not done: the state of the guest or of the node forbids it."""

    code = "refused"
    http_status = 409


class ServiceDownError(AffinityError):
    """The service does not answer."""

    code = "service-down"
    http_status = 503
    default_hint = "start it with: systemctl start proxmox-cpu-affinity"


class ProgramFailedError(AffinityError):
    """A program of PVE's, or the measuring program, ended with an error or ran out of time."""

    code = "program-failed"


class SystemdError(AffinityError):
    """systemd refused, or does not answer."""

    code = "systemd"
    http_status = 503


class MeasureError(AffinityError):
    """The latency could not be measured."""

    code = "measure"
    http_status = 503


class StoreError(AffinityError):
    """The state or cache file cannot be written."""

    code = "store"


class ExhaustedError(AffinityError):
    """No file can be opened, or no thread or process started, for want of descriptors, memory or
    processes: nothing is known of what is in it, not even whether it is there. It may pass."""

    code = "exhausted"
    http_status = 503
    default_hint = "look at the open files and the memory of the process and of the host"


class UnplaceableError(AffinityError):
    """No placement can be given to this guest; the text says why."""

    code = "unplaceable"
    http_status = 409


def family(base: type[AffinityError] = AffinityError) -> tuple[type[AffinityError], ...]:
    """Every class of the family, base first."""
    return (base, *(kin for sub in base.__subclasses__() for kin in family(sub)))
