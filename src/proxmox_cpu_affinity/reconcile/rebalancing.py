"""PCA_REBALANCE in the brain: when a guest has stopped, others may do better on its CPUs.

At most two guests move (engine.rebalance), each for a gain beyond a threshold; advice says the
same and moves nobody. Guests that are just starting stay.
"""

from dataclasses import replace
from typing import assert_never

from proxmox_cpu_affinity.engine.rebalance import Move, rebalanced
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Rebalance, Strategy
from proxmox_cpu_affinity.reconcile.actions import Action, Level, Record, Tell
from proxmox_cpu_affinity.reconcile.placing import given
from proxmox_cpu_affinity.reconcile.state import Result, State

SETTLED_AFTER = 60.0
"""Seconds that a guest must have run before it is moved."""


def eased(before: State, state: State, actions: tuple[Action, ...], now: float) -> Result:
    """After a step: moves, or advice, if a guest that ran is gone."""
    rules = state.host.rules
    if rules.rebalance is Rebalance.OFF or rules.strategy is Strategy.ROUND_ROBIN:
        return state, actions
    # Who was let go, or refused, runs on.
    run_on = state.tracked.keys() | state.released | state.refused.keys()
    left = (v for v, t in before.tracked.items() if t.running and v not in run_on)
    if all(state.excluded(vmid) for vmid in left) or not state.tracked:
        return state, actions
    staying = [
        vmid
        for vmid, tracked in state.tracked.items()
        if not tracked.running or now - tracked.since < SETTLED_AFTER
    ]
    policies = {vmid: tracked.policy for vmid, tracked in state.tracked.items()}
    occupancy = state.occupancy()
    for move in rebalanced(state.host, occupancy, staying=staying, policies=policies):
        state, more = _moved(state, move)
        actions += more
    return state, actions


def _moved(state: State, move: Move) -> Result:
    vmid = move.before.vmid
    match state.host.rules.rebalance:
        case Rebalance.OFF:
            return state, ()
        case Rebalance.ADVISE:
            text = f"would move {move.reason}; PCA_REBALANCE=on does so"
            return state, (Tell(Level.INFO, vmid, text),)
        case Rebalance.ON:
            return _carried_out(state, vmid, move)
        case _:
            assert_never(state.host.rules.rebalance)


def _carried_out(state: State, vmid: Vmid, move: Move) -> Result:
    before = state.tracked[vmid]
    decision = Decision(move.after, (), move.reason)
    after = replace(before, placement=move.after, decision=decision)
    told = Tell(Level.INFO, vmid, f"moves {move.reason}")
    return given(state, before, after, (Record(vmid, decision), told))
