"""The service's brain: step(state, event) -> (state, actions). Pure: no clock, no I/O.

Hooks are hints, scans are the truth. The daemon only feeds events and carries out actions; any
history of events may be replayed and gives the same placements.
"""

from proxmox_cpu_affinity.reconcile.brain import step
from proxmox_cpu_affinity.reconcile.state import State, Tracked

__all__ = ["State", "Tracked", "step"]
