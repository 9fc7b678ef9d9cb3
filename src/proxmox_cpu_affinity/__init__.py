"""Gives every virtual machine of a Proxmox VE node the CPUs that suit it best."""

__version__ = "0.1.0"
