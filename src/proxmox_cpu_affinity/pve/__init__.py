"""Adapters to Proxmox VE: its files (read only), and its programs (qm: command line only)."""
