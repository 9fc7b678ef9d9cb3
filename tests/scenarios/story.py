"""Plays a story against the brain: one line an event, one line each decision, action and outcome.

A story's line is a time and words: `30 scan`. Hooks and scans are fed as the service would feed
them, actions carried out on a world in memory, answers fed at once. A restart of the service goes
by what was saved last, so a save that is missing shows.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from proxmox_cpu_affinity.engine.facts import Host, Rules, compile_host
from proxmox_cpu_affinity.engine.rebalance import rebalanced
from proxmox_cpu_affinity.formats import settings
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile import State, rebalancing, step
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    DeleteDropIn,
    Enclose,
    Inspect,
    LookForMoves,
    MoveMemory,
    Record,
    Save,
    Tell,
    Undo,
    Watch,
    WriteDropIn,
)
from proxmox_cpu_affinity.reconcile.events import (
    Confirmed,
    Enclosed,
    Event,
    HookCalled,
    HostChanged,
    Inspected,
    ManageChanged,
    MemoryMoved,
    MovesFound,
    Phase,
    ProcessEnded,
    ReassignAsked,
    Scanned,
    ScopeAppeared,
    ScopeRemoved,
    ScopesLost,
    ScopesReached,
    SetFree,
    Waited,
)
from proxmox_cpu_affinity.service import persist
from tests.scenarios.scenario import Scenario, confined_words, decided_words, topology
from tests.scenarios.world import ELSEWHERE, NODE, World

BOOT = "one boot"


class Story:
    """A service's life so far. `lines` is what would be in expected.txt."""

    def __init__(self, scenario: Scenario) -> None:
        self.environment = dict(scenario.settings)
        self.topology = topology(scenario.host)
        self.world = World(self.topology.online)
        for vmid, lines in scenario.guests.items():
            self.world.write(vmid, lines)
        wanted = self.wanted_settings()
        self.state = State(self._host(), wanted.manage, move_memory=wanted.move_memory)
        self.saved = self._written()
        self.watched: set[GuestProcess] = set()
        self.lines: list[str] = []
        self.fed: list[Event] = []
        self.acted: list[Action] = []
        self.each_step: Callable[[State, Event, State, tuple[Action, ...]], None] | None = None
        self.forgot = False  # a life of the service ended without what it knew being kept
        self._looked: Scanned | None = None
        self._now = 0.0

    def wanted_settings(self) -> settings.Settings:
        found, warnings = settings.settings("", self.environment, file="scenario.json")
        if warnings:
            raise ValueError(f"the settings of a scenario are warned about: {warnings}")
        return found

    def _host(self) -> Host:
        wanted = self.wanted_settings()
        rules = Rules(
            wanted.strategy,
            wanted.weights,
            wanted.reserved,
            wanted.dedicated_fallback,
            wanted.width,
            wanted.rebalance,
            widening=wanted.widening,
        )
        return compile_host(self.topology, predicted(self.topology), rules)

    def _written(self) -> str:
        return json.dumps(persist.to_json(self.state, boot_id=BOOT))

    # -- the service -------------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        before = self.state
        self.state, actions = step(before, event)
        self.fed.append(event)
        if self.each_step is not None:
            self.each_step(before, event, self.state, actions)
        for action in actions:
            self.acted.append(action)
            self._carry_out(action, event.time)

    def _carry_out(self, action: Action, now: float) -> None:
        match action:
            case Confine():
                confined = self.world.confine(action.process, action.placement)
                self._say(f"confines {confined_words(confined)}")
                self.feed(Confirmed(now, confined))
            case Undo():
                confined = self.world.undo(action.process, dict(action.found), action.free)
                self._say(f"undoes {confined_words(confined)}")
                self.feed(SetFree(now, confined))
            case Inspect():
                self._say(f"inspects {', '.join(str(p.vmid) for p in action.processes)}")
                seen = tuple((p, self.world.threads(p)) for p in action.processes)
                self.feed(Inspected(now, seen))
            case Watch():
                self._say(f"watches {action.process.vmid}")
                self.watched.add(action.process)
            case Enclose() | WriteDropIn() | DeleteDropIn():
                self._ask_systemd(action, now)
            case MoveMemory():
                off, onto = (", ".join(map(str, sorted(n))) for n in (action.off, action.onto))
                self._say(f"moves memory of {action.process.vmid} from node {off} to {onto}")
                self.feed(MemoryMoved(now, action.process, action.onto, 512.0, 0.0))
            case LookForMoves():
                question = rebalancing.question(self.state, now, asked=action.asked)
                self.feed(MovesFound(now, question, rebalanced(question), action.asked))
            case Save():
                self._say("saves")
                self.saved = self._written()
            case Record():
                self._say(f"decides {decided_words(action.decision)}")
            case Tell():
                self._say(f"tells {action.level} {action.vmid}: {action.text}")
            case _:
                assert_never(action)

    def _ask_systemd(self, action: Enclose | WriteDropIn | DeleteDropIn, now: float) -> None:
        match action:
            case Enclose():
                self._say(f"encloses {action.vmid} in CPUs {action.cpus}")
                effective = self.world.enclose(action.vmid, action.cpus)
                self.feed(Enclosed(now, action.vmid, action.cpus, effective))
            case WriteDropIn():
                self._say(f"writes the drop-in of {action.vmid}: CPUs {action.cpus}")
                self.world.drop_ins[action.vmid] = action.cpus
            case DeleteDropIn():
                self._say(f"deletes the drop-in of {action.vmid}")
                self.world.drop_ins.pop(action.vmid, None)

    def _say(self, text: str) -> None:
        self.lines.append(f"    {text}")

    # -- events ------------------------------------------------------------------------------------

    def play(self, line: str) -> None:
        """One line of the story. ValueError for words that are no event."""
        time, _, words = line.partition(" ")
        self.lines.append(line)
        event, *rest = words.split(" ", 2)
        self._now = float(time)
        if event in tuple(Phase):
            self._hook(Vmid(int(rest[0])), Phase(event))
        elif event in self._node_events():
            self._node_events()[event](*rest)
        elif event in self._guest_events():
            vmid, *more = rest
            self._guest_events()[event](Vmid(int(vmid)), *more)
        else:
            raise ValueError(f"{line!r}: {event!r} is no event")

    def _node_events(self) -> dict[str, Callable[..., None]]:
        return {
            "look": self._look,
            "scan": self._scan,
            "host": self._switch,
            "hardware": self._switch_unheard,
            "measured": self._measured,
            "waited": self._waited,
            "set-service": self._reload,
            "restart": self._restart,
            "release": self._release,
            "unmount": self._unmount,
            "systemd": self._systemd,
            "lose-systemd": self._lose_systemd,
            "rebalance": self._rebalance,
            "deaf": self._deaf,
            "hearing": self._hearing,
        }

    def _guest_events(self) -> dict[str, Callable[..., None]]:
        return {
            "boot": self._boot,
            "container": self._container,
            "scope": self._scope,
            "unheard-scope": self._unheard_scope,
            "scope-gone": self._scope_gone,
            "start": self._start,
            "stop": self._stop,
            "run": self._run,
            "die": self._die,
            "vanish": self._vanish,
            "reassign": self._reassign,
            "undo": self._undo,
            "set": self._set,
            "unset": self._unset,
            "unreadable": self._unreadable,
            "readable": self._readable,
            "create": self._create,
            "destroy": self._destroy,
            "to": self._to,
            "drift": self._drift,
            "spawn": self._spawn,
            "exit": self._exit,
            "refuse": self._refuse,
        }

    def _hook(self, vmid: Vmid, phase: Phase) -> None:
        config, process = self.world.config(vmid), self.world.process(vmid)
        self.feed(HookCalled(self._now, vmid, phase, config, process))

    def _start(self, vmid: Vmid) -> None:
        """A start of PVE's with our hookscript."""
        self._hook(vmid, Phase.PRE_START)
        self.world.run(vmid)
        self._hook(vmid, Phase.POST_START)

    def _boot(self, vmid: Vmid) -> None:
        """As `start`, in a scope of which systemd tells."""
        self._hook(vmid, Phase.PRE_START)
        self._scope(vmid)
        self.world.run(vmid)
        self._hook(vmid, Phase.POST_START)

    def _container(self, vmid: Vmid, cpus: str) -> None:
        """A container is given CPUs."""
        self.world.containers[vmid] = CpuSet.parse(cpus)

    def _unheard_scope(self, vmid: Vmid) -> None:
        """PVE makes the guest's scope; what systemd tells of it comes too late."""
        allowed = self.world.open_scope(vmid)
        limit = "no limit" if allowed is None else f"CPUs {allowed}"
        self._say(f"the scope of {vmid} begins with {limit}")

    def _scope(self, vmid: Vmid) -> None:
        """PVE makes the guest's scope, and systemd tells of it."""
        self._unheard_scope(vmid)
        allowed = self.world.scopes[vmid]
        config, process = self.world.config(vmid), self.world.process(vmid)
        if self.state.scopes:
            self.feed(ScopeAppeared(self._now, vmid, config, process, allowed))

    def _scope_gone(self, vmid: Vmid) -> None:
        del self.world.scopes[vmid]
        if not self.state.scopes:
            return
        self.feed(ScopeRemoved(self._now, vmid))

    def _systemd(self) -> None:
        """The service reaches systemd."""
        self.feed(ScopesReached(self._now))

    def _lose_systemd(self) -> None:
        self.feed(ScopesLost(self._now))

    def _stop(self, vmid: Vmid) -> None:
        """A stop of PVE's, as from version 9: post-stop comes when the process is gone."""
        self._hook(vmid, Phase.PRE_STOP)
        self._die(vmid)
        self._hook(vmid, Phase.POST_STOP)

    def _run(self, vmid: Vmid, vcpus: str = "") -> None:
        self.world.run(vmid, vcpus=int(vcpus) if vcpus else None)

    def _die(self, vmid: Vmid) -> None:
        """The process ends; whoever watches it hears of it."""
        process = self._running(vmid)
        del self.world.tasks[process]
        self.world.scopes.pop(vmid, None)
        if process in self.watched:
            self.watched.remove(process)
            self.feed(ProcessEnded(self._now, process))

    def _vanish(self, vmid: Vmid) -> None:
        """The process ends, and nobody hears of it."""
        process = self._running(vmid)
        del self.world.tasks[process]
        self.world.scopes.pop(vmid, None)
        self.watched.discard(process)

    def _look(self) -> None:
        """A scan begins: what it reads now is fed by the next `scan`."""
        configs, unreadable = self.world.configs()
        self._looked = Scanned(
            self._now, configs, self.world.processes(), unreadable, self.world.outside()
        )

    def _scan(self) -> None:
        if not self.world.mounted:
            self._say("cannot read /etc/pve: nothing is fed")
            return
        if self._looked is None:
            self._look()
        if self._looked is not None:
            looked, self._looked = self._looked, None
            self.feed(looked)

    def _unmount(self) -> None:
        self.world.mounted = False

    def _rebalance(self) -> None:
        """As at the end of `reassign --all`."""
        for action in rebalancing.wanted(self.state, asked=True):
            self._carry_out(action, self._now)

    def _deaf(self) -> None:
        """systemd stops to answer."""
        self.world.deaf = True

    def _hearing(self) -> None:
        self.world.deaf = False

    def _switch(self, spec: str) -> None:
        """Other CPUs are online."""
        self._switch_unheard(spec)
        self.feed(HostChanged(self._now, self._host(), switched=True))

    def _switch_unheard(self, spec: str) -> None:
        """As `host`, while the service is down."""
        self.topology = topology(spec)
        self.world.switch(self.topology.online)

    def _measured(self) -> None:
        self.feed(HostChanged(self._now, self._host(), measured=True))

    def _waited(self, shares: str) -> None:
        """Guests waited for CPUs for these shares of the time, in per cent: `100=3,101=0.2`."""
        pairs = (one.split("=") for one in shares.split(","))
        self.feed(Waited(self._now, {Vmid(int(v)): float(share) / 100 for v, share in pairs}))

    def _reload(self, name: str, value: str = "") -> None:
        """A setting changes and the service is sent SIGHUP."""
        self.environment[name] = value
        wanted = self.wanted_settings()
        self.feed(HostChanged(self._now, self._host()))
        self.feed(ManageChanged(self._now, wanted.manage, wanted.move_memory))

    def _restart(self, how: str = "") -> None:
        """The service is killed and comes back; with `lost` its state file is gone."""
        wanted = self.wanted_settings()
        self.forgot |= how == "lost"
        fresh = State(
            self._host(),
            wanted.manage,
            adopt=how == "lost",
            move_memory=wanted.move_memory,
        )
        self.watched = set()
        self._looked = None
        self.world.drop_ins.clear()  # ExecStopPost, and the start itself, delete them
        if how != "lost":
            memory = persist.from_json(json.loads(self.saved), boot_id=BOOT)
            memory = persist.without_reservations(memory)
            fresh = persist.remembering(fresh, memory)
        self.state = fresh
        known = [t.process for t in fresh.tracked.values() if t.process is not None]
        for process in known:
            if process in self.world.tasks:
                self.watched.add(process)
            else:
                self.feed(ProcessEnded(self._now, process))
        if self.state.astray():
            self.feed(HostChanged(self._now, self.state.host))

    def _release(self) -> None:
        """The service stops and lets everybody go."""
        for vmid in sorted(v for v, t in self.state.tracked.items() if t.running):
            self.feed(ReassignAsked(self._now, vmid, undo=True))

    def _reassign(self, vmid: Vmid) -> None:
        config, process = self.world.config(vmid), self.world.process(vmid)
        if config is None:
            self._say(f"there is no guest {vmid}")
            return
        self.state = replace(self.state, configs={**self.state.configs, vmid: config})
        self.feed(ReassignAsked(self._now, vmid))
        if process is not None and vmid not in self.state.tracked:
            self.feed(HookCalled(self._now, vmid, Phase.POST_START, config, process))

    def _undo(self, vmid: Vmid) -> None:
        self.feed(ReassignAsked(self._now, vmid, undo=True))

    def _set(self, vmid: Vmid, line: str) -> None:
        key, _, value = line.partition(": ")
        self.world.guests[vmid].keys[key] = value

    def _unset(self, vmid: Vmid, key: str) -> None:
        del self.world.guests[vmid].keys[key]

    def _unreadable(self, vmid: Vmid) -> None:
        self.world.guests[vmid].readable = False

    def _readable(self, vmid: Vmid) -> None:
        self.world.guests[vmid].readable = True

    def _create(self, vmid: Vmid, lines: str) -> None:
        self.world.write(vmid, lines.split(" | "))

    def _destroy(self, vmid: Vmid) -> None:
        del self.world.guests[vmid]

    def _to(self, vmid: Vmid, node: str) -> None:
        self.world.moved_to(vmid, {"here": NODE, "elsewhere": ELSEWHERE}[node])

    def _drift(self, vmid: Vmid, cpus: str) -> None:
        self.world.drift(self._running(vmid), CpuSet.parse(cpus))

    def _spawn(self, vmid: Vmid, name: str) -> None:
        self.world.spawn(self._running(vmid), name)

    def _exit(self, vmid: Vmid, name: str) -> None:
        self.world.exit(self._running(vmid), name)

    def _refuse(self, vmid: Vmid, name: str) -> None:
        self.world.refuse(self._running(vmid), name)

    def _running(self, vmid: Vmid) -> GuestProcess:
        process = self.world.process(vmid)
        if process is None:
            raise ValueError(f"guest {vmid} does not run")
        return process

    # -- the end -----------------------------------------------------------------------------------

    def ending(self) -> list[str]:
        """What the service believes, and what the kernel shows, in the end."""
        lines = ["in the end"]
        for vmid, tracked in sorted(self.state.tracked.items()):
            word = "runs on" if tracked.running else "is reserved"
            lines.append(f"    {vmid} {word} CPUs {tracked.placement.home}")
        for vmid, process in sorted(self.world.processes().items()):
            masks = sorted({str(thread.affinity) for thread in self.world.threads(process)})
            lines.append(f"    the kernel has {vmid} on CPUs {' and '.join(masks)}")
        for vmid, cpus in sorted(self.world.drop_ins.items()):
            lines.append(f"    a drop-in stands for {vmid}: CPUs {cpus}")
        return lines if len(lines) > 1 else [*lines, "    nothing runs"]


def told(scenario: Scenario) -> str:
    """The whole story as expected.txt has it."""
    story = Story(scenario)
    for line in scenario.events:
        story.play(line)
    return "\n".join([*story.lines, *story.ending()]) + "\n"
