"""What the commands have in common: help with examples, and what must hold before one runs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.model.errors import AffinityError, UsageError
from proxmox_cpu_affinity.model.ids import VMID_MAX, VMID_MIN, Vmid, vmid_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from proxmox_cpu_affinity.linux.tree import Tree

DONE, FAILED, PART = 0, 1, 3
"""Exit statuses of commands that end by themselves; those of errors are in model.errors."""


def exit_status(*, good: int, bad: int) -> int:
    """For a number of guests that are as wished, and of those that failed."""
    if not bad:
        return DONE
    return PART if good else FAILED


@dataclass(frozen=True, slots=True)
class Session:
    """What every command is given: the root that everything lies below."""

    root: Path

    @property
    def tree(self) -> "Tree":
        from proxmox_cpu_affinity.linux.tree import Tree

        return Tree(self.root)

    @property
    def real(self) -> bool:
        """Whether this is the host itself, not a simulated node."""
        return self.root == Path("/")


class _WithExamples:
    """Ends the help text with examples."""

    examples: Sequence[str]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        program = ctx.find_root().info_name
        with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
            for example in self.examples:
                indent = " " * formatter.current_indent  # never wrapped: it is to be copied
                formatter.write(f"{indent}{program} {example}\n")


class Command(_WithExamples, click.Command):
    """A command. `examples` are its command lines without the program's name."""

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str],
        needs_root: bool = True,
        needs_pve: bool = False,
        looks_here: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.needs_root = needs_root
        self.needs_pve = needs_pve
        self.looks_here = looks_here  # below the root, which then must be there

    def invoke(self, ctx: click.Context) -> Any:
        session = ctx.find_object(Session)
        assert session is not None
        if self.looks_here:
            require_root_folder(session)
        if self.needs_root and not ctx.params.get("quiet"):
            warn_without_root(session)
        if self.needs_pve:
            require_pve(session)
        try:
            return super().invoke(ctx)
        except AffinityError as error:
            from proxmox_cpu_affinity.cli.remedies import Remedies

            error.hint = Remedies(session.root).with_path(error.hint)
            raise


class Group(_WithExamples, click.Group):
    """A command with commands of its own."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a command that there is not brings those that are spelled alike."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            alike = get_close_matches(args[0], self.list_commands(ctx))
            if alike:
                error.message = f"{error.message} Did you mean {' or '.join(alike)}?"
            raise


def require_root_folder(session: Session) -> None:
    """UsageError for a root that is not there (any more)."""
    if not session.root.is_dir():
        raise UsageError(
            f"the root {session.root} is no directory",
            hint="see --root, and PCA_ROOT in the environment",
        )


def warn_without_root(session: Session) -> None:
    if session.real and os.geteuid() != 0:
        ui.warn("not running as root: much of this will fail or be left out")


def require_pve(session: Session) -> None:
    """NotPveHostError where the root holds no Proxmox VE node."""
    from proxmox_cpu_affinity.pve.guests import NodeGuests

    _ = NodeGuests(session.tree).node


class VmidType(click.ParamType):
    """A VMID as PVE takes it."""

    name = "vmid"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Vmid:
        vmid = vmid_of(str(value))
        if vmid is None:
            self.fail(
                f"{value!r} is no VMID: a number from {VMID_MIN} to {VMID_MAX}",
                param,
                ctx,
            )
        return vmid

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        """The guests of this node."""
        from click.shell_completion import CompletionItem

        from proxmox_cpu_affinity.linux.tree import Tree
        from proxmox_cpu_affinity.pve.guests import NodeGuests

        del param
        root = ctx.find_root().params.get("root")
        try:
            vmids = NodeGuests(Tree(Path(root or "/"))).vmids()
        except AffinityError:
            return []
        return [CompletionItem(str(v)) for v in vmids if str(v).startswith(incomplete)]


VMID = VmidType()
CPULIST_HINT = "write it like 0-1,8"
"""What to do about a cpulist that is none."""


def complete_file(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Files, for options that take other words too."""
    from click.shell_completion import CompletionItem

    del ctx, param
    return [CompletionItem(incomplete, type="file")]


def not_written(option: str, path: Path, error: OSError) -> UsageError:
    """Of a file that an option names and that cannot be written."""
    return UsageError(f"{option} {path}: {error.strerror}", hint="name a file that can be written")


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet = click.option("-q", "--quiet", is_flag=True, help="No warnings and remarks on stderr.")
socket = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The service's socket, where it is not the usual one.",
)
