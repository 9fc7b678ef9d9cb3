"""The settings of this node's service, as its file and the environment have them.

A service that was started with other flags knows better: `status` asks it. Out of scope: warnings
about settings, which are the service's to tell.
"""

import os

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.formats.settings import Settings, settings
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import SettingError
from proxmox_cpu_affinity.model.guest import Manage
from proxmox_cpu_affinity.service.paths import SETTINGS


def settings_here(tree: Tree) -> Settings:
    """SettingError."""
    return settings(tree.text(SETTINGS) or "", os.environ, file=f"/{SETTINGS}")[0]


def manage_here(tree: Tree, *, quiet: bool = False) -> Manage | None:
    """PCA_MANAGE; None, with a warning, where the settings cannot be understood."""
    try:
        return settings_here(tree).manage
    except SettingError as error:
        if not quiet:
            ui.warn(f"not known which guests are managed: {error.text}")
        return None
