"""What the API takes: the bodies of requests, read strictly, and how large they may be."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.model.errors import BadRequestError
from proxmox_cpu_affinity.model.guest import VCPUS_MOST, Policy
from proxmox_cpu_affinity.model.ids import VMID_MAX, VMID_MIN

BODY_LIMIT = 64 * 1024
SOCKETS_MOST = 64
PLAN_MOST = 1000  # guests of one plan


@dataclass(frozen=True, slots=True)
class HookBody:
    """Body of the four hook calls."""

    migrated_from: str = ""

    @staticmethod
    def read(body: Mapping[str, object]) -> "HookBody":
        jsonvalue.only(body, "migrated_from")
        return HookBody(jsonvalue.text(body, "migrated_from", ""))


@dataclass(frozen=True, slots=True)
class ReassignBody:
    undo: bool = False

    @staticmethod
    def read(body: Mapping[str, object]) -> "ReassignBody":
        jsonvalue.only(body, "undo")
        return ReassignBody(jsonvalue.boolean(body, "undo", default=False))


@dataclass(frozen=True, slots=True)
class PlanGuest:
    """As a guest's configuration would have it: `numa` with several sockets is one host node for
    each of these, `policy` what its tags say."""

    vmid: int = field(metadata={"minimum": VMID_MIN, "maximum": VMID_MAX})
    vcpus: int = field(metadata={"minimum": 1, "maximum": VCPUS_MOST})
    sockets: int = field(default=1, metadata={"minimum": 1, "maximum": SOCKETS_MOST})
    numa: bool = False
    policy: str = field(default=Policy.SHARED.value, metadata={"enum": [str(p) for p in Policy]})

    @staticmethod
    def read(entry: Mapping[str, object]) -> "PlanGuest":
        jsonvalue.only(entry, "vmid", "vcpus", "sockets", "numa", "policy")
        policy = jsonvalue.text(entry, "policy", Policy.SHARED)
        if policy not in tuple(Policy):
            raise BadRequestError(f"'policy' must be one of {', '.join(Policy)}")
        return PlanGuest(
            jsonvalue.whole(entry, "vmid", low=VMID_MIN, high=VMID_MAX),
            jsonvalue.whole(entry, "vcpus", low=1, high=VCPUS_MOST),
            jsonvalue.whole({"sockets": 1, **entry}, "sockets", low=1, high=SOCKETS_MOST),
            jsonvalue.boolean(entry, "numa", default=False),
            str(policy),
        )


@dataclass(frozen=True, slots=True)
class PlanBody:
    guests: list[PlanGuest] = field(metadata={"maxItems": PLAN_MOST})

    @staticmethod
    def read(body: Mapping[str, object]) -> "PlanBody":
        jsonvalue.only(body, "guests")
        guests = [
            PlanGuest.read(entry) for entry in jsonvalue.objects(body, "guests", most=PLAN_MOST)
        ]
        if len({guest.vmid for guest in guests}) < len(guests):
            raise BadRequestError("a guest stands twice in the plan")
        return PlanBody(guests)
