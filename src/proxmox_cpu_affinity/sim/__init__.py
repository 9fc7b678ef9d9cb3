"""A simulated PVE node: directories, programs and guests that behave as Proxmox VE's do."""
