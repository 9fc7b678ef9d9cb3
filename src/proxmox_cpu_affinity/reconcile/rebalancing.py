"""PCA_REBALANCE in the brain: when a guest has stopped, others may do better on its CPUs.

The search takes long beside a step, so it is asked for and its answer is an event; an answer to a
state that is past is thrown away, and asked for again. At most two guests move
(engine.rebalance), each for a gain beyond a threshold; advice says the same and moves nobody.
Guests that are just starting stay.
"""

from dataclasses import replace
from typing import assert_never

from proxmox_cpu_affinity.engine.rebalance import MOST, Move, Question
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Rebalance, Strategy
from proxmox_cpu_affinity.reconcile.actions import Action, Level, LookForMoves, Record, Tell
from proxmox_cpu_affinity.reconcile.events import MovesFound
from proxmox_cpu_affinity.reconcile.placing import given
from proxmox_cpu_affinity.reconcile.state import Result, State

SETTLED_AFTER = 60.0
"""Seconds that a guest must have run before it is moved, unless moves were asked for."""


def wanted(state: State, *, asked: bool) -> tuple[Action, ...]:
    """The search for moves, where the settings and the guests leave anything to look for."""
    rules = state.host.rules
    if rules.rebalance is Rebalance.OFF or rules.strategy is Strategy.ROUND_ROBIN:
        return ()
    return (LookForMoves(asked),) if state.tracked else ()


def rationed(before: State, state: State) -> State:
    """After a step: starts and stops earn moves."""
    events = len(before.tracked.keys() ^ state.tracked.keys())
    return replace(state, ration=state.ration.earned(events)) if events else state


def eased(before: State, state: State) -> tuple[Action, ...]:
    """After a step: the search for moves, if a guest that ran is gone."""
    # Who was let go, or refused, runs on.
    run_on = state.tracked.keys() | state.released | state.refused.keys()
    left = (v for v, t in before.tracked.items() if t.running and v not in run_on)
    return () if all(state.excluded(vmid) for vmid in left) else wanted(state, asked=False)


def question(state: State, now: float, *, asked: bool) -> Question:
    """What moves are to be looked for in."""
    staying = frozenset(
        vmid
        for vmid, tracked in state.tracked.items()
        if not tracked.running or (now - tracked.since < SETTLED_AFTER and not asked)
    )
    policies = {vmid: tracked.policy for vmid, tracked in state.tracked.items()}
    most = MOST if asked else state.ration.moves
    return Question(state.host, state.occupancy(), most, staying, policies)


def stands(state: State, asked: Question) -> bool:
    """Whether the state is still the one that the question was made from."""
    return asked.host is state.host and asked.occupancy == state.occupancy()


def found(state: State, event: MovesFound) -> Result:
    """The moves, or advice; another search if the state has changed since."""
    if not stands(state, event.question):
        return state, wanted(state, asked=event.asked)
    actions: tuple[Action, ...] = ()
    if not event.asked:
        state = replace(state, ration=state.ration.spent(len(event.moves)))
    for move in event.moves:
        state, more = _moved(state, move)
        actions += more
    return state, actions


def words(state: State, move: Move) -> str:
    """A move in a line, with what it gains and costs."""
    if state.host.rules.rebalance is Rebalance.ON:
        return f"moves {move.reason}"
    return f"would move {move.reason}; PCA_REBALANCE=on does so"


def _moved(state: State, move: Move) -> Result:
    vmid = move.before.vmid
    match state.host.rules.rebalance:
        case Rebalance.OFF:
            return state, ()
        case Rebalance.ADVISE:
            return state, (Tell(Level.INFO, vmid, words(state, move)),)
        case Rebalance.ON:
            return _carried_out(state, vmid, move)
        case _:
            assert_never(state.host.rules.rebalance)


def _carried_out(state: State, vmid: Vmid, move: Move) -> Result:
    before = state.tracked[vmid]
    decision = Decision(move.after, (), move.reason)
    after = replace(before, placement=move.after, decision=decision)
    told = Tell(Level.INFO, vmid, words(state, move))
    return given(state, before, after, (Record(vmid, decision), told))
