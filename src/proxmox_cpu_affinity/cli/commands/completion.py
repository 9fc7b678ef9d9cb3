"""`completion`: the script that makes a shell complete this program's words."""

import click
from click.shell_completion import get_completion_class

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import Command


@click.command(
    cls=Command,
    needs_root=False,
    looks_here=False,
    examples=("completion bash",),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    """Print the completion script of a shell, to be sourced by it."""
    from proxmox_cpu_affinity.cli.main import COMPLETION, NAME, cli

    kind = get_completion_class(shell)
    assert kind is not None
    ui.raw(kind(cli, {}, NAME, COMPLETION).source())
