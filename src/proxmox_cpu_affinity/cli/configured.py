"""The settings of this node's service, as its file and the environment have them.

A service that was started with other flags knows better: `status` asks it.
"""

import os
from collections.abc import Mapping

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.formats.settings import Settings, settings
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import RefusedError, SettingError
from proxmox_cpu_affinity.model.guest import Manage
from proxmox_cpu_affinity.service.paths import SETTINGS


def settings_of(tree: Tree, environment: Mapping[str, str]) -> tuple[Settings, tuple[str, ...]]:
    """What the file says where the environment says nothing, and what is to be warned of.

    SettingError; RefusedError where the file is there and cannot be read.
    """
    text, shown = tree.text(SETTINGS), tree.shown(SETTINGS)
    if text is None and os.path.lexists(tree.at(SETTINGS)):
        raise RefusedError(f"{shown} cannot be read", hint="run this as root")
    return settings(text or "", environment, file=shown)


def settings_here(tree: Tree) -> Settings:
    """The settings by this environment. Errors as of settings_of."""
    return settings_of(tree, os.environ)[0]


def manage_here(tree: Tree, *, quiet: bool = False) -> Manage | None:
    """PCA_MANAGE; None, with a warning, where the settings cannot be read or understood."""
    try:
        return settings_here(tree).manage
    except (SettingError, RefusedError) as error:
        if not quiet:
            ui.warn(f"not known which guests are managed: {error.text}")
        return None
