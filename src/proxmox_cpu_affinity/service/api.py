"""What each endpoint does: a method for every name in endpoints.ENDPOINTS, checked at start."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

from proxmox_cpu_affinity import __version__
from proxmox_cpu_affinity.engine.occupancy import overlapping
from proxmox_cpu_affinity.engine.plan import steps, summed
from proxmox_cpu_affinity.formats import endpoints, wire, wire_bodies
from proxmox_cpu_affinity.formats.wire_trial import Preview, Trial
from proxmox_cpu_affinity.model.errors import (
    AffinityError,
    BadRequestError,
    GuestNotFoundError,
    NotPveHostError,
    RefusedError,
)
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Request, described
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Outcome
from proxmox_cpu_affinity.reconcile.events import Phase
from proxmox_cpu_affinity.reconcile.placing import request_for
from proxmox_cpu_affinity.render.heatmap import heatmap_svg
from proxmox_cpu_affinity.render.page import Sight, page_html
from proxmox_cpu_affinity.service import outcomes, trial, views
from proxmox_cpu_affinity.service.app import Service, no_guest
from proxmox_cpu_affinity.service.stream import Stream

P = ParamSpec("P")
T = TypeVar("T")
Body = Mapping[str, object]
Handler = Callable[["Call"], Awaitable[object]]


WAITING_MOST = 2048  # calls that take long, and wait for their turn


class BusyError(AffinityError):
    """More was asked than can wait."""

    code = "busy"
    http_status = 503
    default_hint = "try again in a while"


class Call:
    """One request: the VMID of its path, its query and its body, read where they are used."""

    __slots__ = ("_vmid", "body", "query")

    def __init__(self, vmid: str, query: Mapping[str, str], body: Body) -> None:
        self._vmid = vmid
        self.query = query
        self.body = body

    @property
    def vmid(self) -> Vmid:
        return endpoints.read_vmid(self._vmid)


class Api:
    """The operations on one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._thinking = asyncio.Lock()
        self._waiting = 0
        self._let_go: set[Vmid] = set()  # by hand, in their last run: it gave back its CPUs then

    @asynccontextmanager
    async def _its_turn(self) -> AsyncIterator[None]:
        """For what takes long: one at a time. BusyError where too many wait already, also of those
        who have gone meanwhile."""
        if self._waiting >= WAITING_MOST:
            raise BusyError("too much was asked at once")
        self._waiting += 1
        try:
            async with self._thinking:
                yield
        finally:
            self._waiting -= 1

    async def _think(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What takes long, in its turn: however many ask, the threads that hooks need are free."""
        async with self._its_turn():
            return await asyncio.to_thread(work, *args, **kwargs)

    def timed(self, name: str) -> AbstractContextManager[None]:
        """Count how long an endpoint takes."""
        return self._service.herald.figures.timed(name)

    def handlers(self) -> dict[str, Handler]:
        """One for every endpoint; a missing one is a defect of ours and ends the start."""
        return {endpoint.name: getattr(self, endpoint.name) for endpoint in endpoints.ENDPOINTS}

    async def ping(self, call: Call) -> wire.Ping:
        del call
        return wire.Ping("pong")

    async def status(self, call: Call) -> wire.Status:
        del call
        service = self._service
        state, host = service.state, service.host
        running = [t for t in state.tracked.values() if t.running]
        full = [t for t in running if t.confined and t.confined.outcome is Outcome.FULL]
        node, trouble = service.files.place()
        unread = (f"guests stay, and are shown, as they were: {trouble}",) if trouble else ()
        return wire.Status(
            version=__version__,
            uptime_s=round(time.monotonic() - service.began, 3),
            node=node,
            model_name=host.topology.model_name,
            cpus=len(host.topology.online),
            usable=str(state.host.usable),
            packages=len(host.topology.packages),
            nodes=len(host.topology.nodes),
            cache_groups=len(host.topology.cache_groups),
            strategy=service.settings.strategy,
            manage=state.manage,
            width=service.settings.width,
            confinement=service.world.confiner.means,
            guests_running=len(running),
            guests_confined=len(full),
            overlap=str(overlapping(state.occupancy())),
            matrix=wire.MatrixState(
                verdict=host.matrix.verdict,
                measured_share=round(host.matrix.share_measured(), 4),
                measuring=host.measuring.running,
                pairs_done=host.measuring.done,
                pairs_all=host.measuring.total,
                conditions=list(host.matrix.conditions),
            ),
            warnings=[*service.warnings, *unread, *host.topology.notes],
            confinement_reason=service.scoping.problem,
            score=await self._think(views.scored, state),
            committed=state.reporter().committed,
        )

    async def page(self, template: str) -> str:
        """The page as it is without scripts."""
        nothing = Call("", {}, {})
        guests, host = await self.guests(nothing), await self.topology(nothing)
        now = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        sight = Sight(now, await self.status(nothing), host, guests)
        return await self._think(page_html, template, sight)

    async def topology(self, call: Call) -> wire.TopologyView:
        del call
        return await self._think(views.topology, self._service.host.topology)

    async def core_ranking(self, call: Call) -> Iterator[wire.Ranking]:
        del call
        return views.ranking(self._service.host.topology, self._service.host.matrix)

    async def core_ranking_summary(self, call: Call) -> wire.RankingSummary:
        del call
        host = self._service.host
        return await self._think(views.summary, host.topology, host.matrix)

    async def core_vm_affinity(self, call: Call) -> dict[str, list[int]]:
        del call
        return views.core_vm_affinity(self._service.state)

    async def guests(self, call: Call) -> list[wire.GuestView]:
        del call
        found = await self._think(self._service.files.all)
        return await self._think(views.guests, self._service.state, found)

    async def guest(self, call: Call) -> wire.GuestView:
        try:
            async with self._its_turn():
                config, process = await self._here(call.vmid)
        except (GuestNotFoundError, NotPveHostError, RefusedError):  # it may be known all the same
            known = [view for view in await self.guests(call) if view.vmid == call.vmid]
            if not known:
                raise
            return known[0]
        state = self._service.state
        scores = await self._think(views.guest_scores, state)
        return views.guest(state, config, process, scores)

    async def _here(self, vmid: Vmid) -> tuple[GuestConfig, GuestProcess | None]:
        """A guest of this node, or one that comes here: its file is still in another's folder."""
        config, process = await asyncio.to_thread(self._service.files.look, vmid)
        if config is None:
            _, unreadable = await asyncio.to_thread(self._service.world.guests.configs)
            if vmid in unreadable:
                raise RefusedError(
                    f"VM {vmid}: its configuration cannot be read", hint="see: qm config"
                )
            raise no_guest(vmid)
        if config.node != self._service.files.place()[0] and process is None:
            tracked = self._service.state.tracked.get(vmid)
            if tracked is None or tracked.running:
                raise no_guest(vmid)
        return config, process

    async def decisions(self, call: Call) -> list[wire.DecisionView]:
        earlier = [
            (kept.time.isoformat(timespec="milliseconds"), kept.vmid, kept.decision)
            for kept in reversed(self._service.effects.decisions)
        ]
        asked = call.query.get("vmid")
        vmid = None if asked is None else Vmid(int(asked))
        return await self._think(views.decisions, self._service.state, earlier, vmid)

    async def heatmap(self, call: Call) -> str:
        state = self._service.state
        shown = None
        if _is_set(call, "affinity"):
            shown = {v: t.placement.home for v, t in state.tracked.items()}
        host = self._service.host
        return await self._think(
            heatmap_svg, host.topology, host.matrix, affinity=shown, bare=_is_set(call, "bare")
        )

    async def matrix(self, call: Call) -> wire.MatrixView:
        del call
        return await self._think(views.matrix, self._service.host.matrix)

    async def events(self, call: Call) -> Stream:
        del call
        return self._service.herald.stream

    async def try_guest(self, call: Call) -> Trial:
        state = self._service.state
        request = trial.asked_for(call.query, state.configs)
        return await self._think(trial.tried, state, request)

    async def preview(self, call: Call) -> Preview:
        state = self._service.state
        if call.query.get("by") == "rebalance":
            return await self._think(trial.rebalancing, state)
        return await self._think(trial.reassigning, state, now=time.monotonic())

    async def metrics(self, call: Call) -> str:
        del call
        return await self._think(_figures, self._service)

    async def pre_start(self, call: Call) -> wire.HookAnswer:
        self._let_go.discard(call.vmid)
        await self._hook(call, Phase.PRE_START)
        return outcomes.hook_started(self._service.state, call.vmid, announced=True)

    async def post_start(self, call: Call) -> wire.HookAnswer:
        self._let_go.discard(call.vmid)
        await self._hook(call, Phase.POST_START)
        return outcomes.hook_started(self._service.state, call.vmid, announced=False)

    async def pre_stop(self, call: Call) -> wire.HookAnswer:
        await self._hook(call, Phase.PRE_STOP)
        return wire.HookAnswer(call.vmid, "")

    async def post_stop(self, call: Call) -> wire.HookAnswer:
        had_none = call.vmid in self._service.state.refused or call.vmid in self._let_go
        await self._hook(call, Phase.POST_STOP)
        if had_none:  # its last place is of an earlier run, or was given back before
            return wire.HookAnswer(call.vmid, "")
        return outcomes.hook_stopped(self._service.state, call.vmid)

    async def _hook(self, call: Call, phase: Phase) -> None:
        wire_bodies.HookBody.read(call.body)
        await self._service.hook(call.vmid, phase)

    async def reassign_guest(self, call: Call) -> wire.ReassignRow:
        undo = wire_bodies.ReassignBody.read(call.body).undo
        return await self._reassign(call.vmid, undo=undo)

    async def reassign_all(self, call: Call) -> list[wire.ReassignRow]:
        undo = wire_bodies.ReassignBody.read(call.body).undo
        await self._service.scan()
        state = self._service.state
        running = sorted(v for v, t in state.tracked.items() if t.running)
        rest = sorted(state.released | state.refused.keys()) if not undo else []
        rows = []
        for vmid in (*running, *rest):
            with suppress(GuestNotFoundError):  # it left while the others were placed
                rows.append(await self._reassign(vmid, undo=undo))
        if undo:
            return rows
        moves = {move.after.vmid: move for move in await self._service.rebalance()}
        state = self._service.state
        for i, row in enumerate(rows):
            move = moves.get(Vmid(row.vmid))
            if move is not None and move.after.vmid in state.tracked:
                rows[i] = outcomes.eased(state, row, move)
        return rows

    async def _reassign(self, vmid: Vmid, *, undo: bool) -> wire.ReassignRow:
        tracked = self._service.state.tracked.get(vmid)
        process = tracked.process if tracked is not None and undo else None
        if process is None:  # letting go needs no configuration
            _, process = await self._here(vmid)
        before = "" if tracked is None else str(tracked.placement.home)
        self._service.freed.pop(vmid, None)
        await self._service.reassign(vmid, undo=undo)
        freed = self._service.freed.pop(vmid, None)
        if undo:
            self._let_go.update({vmid} if freed else ())
            leaving = vmid in self._service.state.leaving
            return outcomes.let_go(vmid, freed, before=before, leaving=leaving)
        self._let_go.discard(vmid)
        return outcomes.reassigned(
            self._service.state, vmid, running=process is not None, before=before, freed=freed
        )

    async def plan(self, call: Call) -> wire.PlanAnswer:
        wanted = wire_bodies.PlanBody.read(call.body).guests
        requests = [_request(guest) for guest in wanted]
        state = self._service.state
        found = []
        async with self._its_turn():
            for step in steps(state.host, state.occupancy(), state.turn, requests):
                found.append(step)
                await asyncio.sleep(0)  # a thousand guests take seconds: hooks come first
        made = summed(found)
        return views.planned(state, made, requests)

    async def vm_started(self, call: Call) -> dict[str, str]:
        answer = await self.post_start(call)
        config = self._service.state.configs.get(call.vmid)
        if config is not None and config.affinity is not None:
            return {"action": f"vm has an affinity configuration {config.affinity}"}
        if answer.outcome != "full":
            raise BadRequestError(answer.line)
        tracked = self._service.state.tracked[call.vmid]
        return {"action": f"new affinity: {','.join(map(str, tracked.placement.home))}"}


def _request(guest: wire_bodies.PlanGuest) -> Request:
    tags = (f"cpu-{guest.policy}",)
    vmid = Vmid(guest.vmid)
    return request_for(
        described(vmid, guest.vcpus, sockets=guest.sockets, numa=guest.numa, tags=tags), None
    )


def _is_set(call: Call, name: str) -> bool:
    return call.query.get(name) in ("1", "true")


def _figures(service: Service) -> str:
    from proxmox_cpu_affinity.service.metrics import exposition

    return exposition(service)
