"""What an mdev of vfio_ap holds: adapters, domains, control domains (drivers/s390/crypto/vfio_ap_ops.c).

Rules and texts alone. The vendor driver gives each attribute one method here: numbers arrive parsed (kstrtoull),
texts go out as they are. `Matrices` is one matrix device's mdevs; it is what the AP bus asks whether a queue is held
(`ApUser`), and `ApHost` is what it asks of the AP bus.
"""

from __future__ import annotations

import errno
import itertools
import logging
import re
from collections.abc import Set
from typing import Literal

from attrs import define, field

from mdevfs.vendor import ApHost, Apqn, Refused

log = logging.getLogger("mdevfs.vendor.vfio_ap")

HOTPLUG_SINCE = "6.0"
BITS = 256

Kind = Literal["adapter", "domain", "control_domain"]
Status = Literal["unassigned", "assigned", "in use"]

_HEX = re.compile(rb"(?:0?x)?([0-9a-fA-F]{0,64})\Z")


@define(eq=False)
class Matrices:
    """Every mdev's matrix of one matrix device, by its name (the UUID).

    Without `hotplug` (before 6.0) nothing can be assigned or unassigned while a guest uses the mdev.
    """

    host: ApHost
    hotplug: bool = True
    all: dict[str, Matrix] = field(factory=dict)

    def add(self, name: str) -> Matrix:
        """The empty matrix of a new mdev."""
        matrix = self.all[name] = Matrix(name, self)
        return matrix

    def drop(self, name: str) -> None:
        """An mdev was removed: its queues are free."""
        del self.all[name]

    def in_use(self, adapters: Set[int], domains: Set[int]) -> bool:
        """vfio_ap_mdev_resource_in_use: whether an mdev holds one of these queues."""
        return any(one.adapters & adapters and one.domains & domains for one in self.all.values())

    def status(self, apqn: Apqn) -> Status:
        """The text of a queue's `status`."""
        for one in self.all.values():
            if apqn[0] in one.adapters and apqn[1] in one.domains:
                adapters, domains = one.guest_config()
                used = one.guest is not None and apqn[0] in adapters and apqn[1] in domains
                return "in use" if used else "assigned"
        return "unassigned"


@define(eq=False)
class Matrix:
    """What one mdev holds; `guest` is the virtual machine that uses it."""

    name: str
    family: Matrices
    adapters: set[int] = field(factory=set)
    domains: set[int] = field(factory=set)
    control_domains: set[int] = field(factory=set)
    guest: str | None = None

    # -- writes

    def assign(self, kind: Kind, number: int) -> None:
        """assign_adapter, assign_domain, assign_control_domain.

        Raises Refused ENODEV above the maximum; then, unless it is assigned already, EADDRNOTAVAIL when a queue
        of the whole matrix would be the host's, EADDRINUSE when it would be another mdev's. Nothing changes then.
        """
        held = self._target(kind, number)
        if number in held:
            return
        held.add(number)
        if kind == "control_domain":
            return
        try:
            self._check_ownership(self.adapters, self.domains)
        except Refused:
            held.discard(number)
            raise

    def unassign(self, kind: Kind, number: int) -> None:
        """unassign_adapter, unassign_domain, unassign_control_domain. Raises Refused ENODEV above the maximum."""
        self._target(kind, number).discard(number)

    def write_ap_config(self, data: bytes) -> None:
        """All three masks at once: `adapters,domains,control domains`.

        Raises Refused EINVAL for fewer or for junk, then as `assign` does, but ENODEV last. Nothing changes then.
        """
        adapters, domains, control_domains = parse_config(data)
        self._check_ownership(adapters, domains)
        for kind, numbers in (("adapter", adapters), ("domain", domains), ("control_domain", control_domains)):
            self._check_range(kind, max(numbers, default=0))
        self.adapters, self.domains, self.control_domains = set(adapters), set(domains), set(control_domains)

    def open(self, guest: str) -> None:
        """A virtual machine opens the mdev. Raises Refused EPERM when it uses another of them already."""
        other = next((one for one in self.family.all.values() if one.guest == guest and one is not self), None)
        if other is not None:
            raise Refused(
                "vfio-ap-guest-has-one",
                errno.EPERM,
                rule=f"guest {guest} uses mdev {other.name}, and a guest may use one",
                side="target",
                mend="assign the queues to the mdev that the guest uses",
            )
        self.guest = guest

    def close(self) -> None:
        """The virtual machine closed the mdev."""
        self.guest = None

    def _target(self, kind: Kind, number: int) -> set[int]:
        if self.guest is not None and not self.family.hotplug:
            raise Refused(
                "vfio-ap-guest-fixed",
                errno.EBUSY,
                parameter=kind,
                rule=f"guest {self.guest} uses the mdev, and before {HOTPLUG_SINCE} that fixes what it holds",
                side="target",
                mend="stop the guest first",
            )
        self._check_range(kind, number)
        return {"adapter": self.adapters, "domain": self.domains, "control_domain": self.control_domains}[kind]

    def _check_range(self, kind: str, number: int) -> None:
        host = self.family.host
        limit = host.max_adapter_id if kind == "adapter" else host.max_domain_id
        if number > limit:
            what = "adapter" if kind == "adapter" else "domain"
            raise Refused(
                f"vfio-ap-no-such-{what}",
                errno.ENODEV,
                parameter=kind,
                rule=f"{kind.replace('_', ' ')} {number:#x} is above the host's maximum {limit:#x}",
                side="target",
                mend=f"read bus/ap/ap_max_{what}_id",
            )

    def _check_ownership(self, adapters: Set[int], domains: Set[int]) -> None:
        """vfio_ap_mdev_validate_masks; without a complete queue there is nothing to own."""
        host = self.family.host
        for apqn in filter(host.reserved_for_host, itertools.product(sorted(adapters), sorted(domains))):
            raise Refused(
                "vfio-ap-reserved",
                errno.EADDRNOTAVAIL,
                rule=f"queue {_name(apqn)} is the host's: apmask and aqmask both have it",
                side="target",
                mend=f"write -{apqn[0]:#x} to bus/ap/apmask, or -{apqn[1]:#x} to bus/ap/aqmask",
            )
        for other in self.family.all.values():
            shared = adapters & other.adapters, domains & other.domains
            if other is not self and all(shared):
                apqn = min(shared[0]), min(shared[1])
                log.info("mdev %s: queue %s is assigned to mdev %s", self.name, _name(apqn), other.name)
                raise Refused(
                    "vfio-ap-in-use",
                    errno.EADDRINUSE,
                    rule=f"queue {_name(apqn)} is assigned to mdev {other.name}",
                    side="target",
                    mend="unassign its adapter or its domain there first",
                )

    # -- texts

    def matrix_text(self) -> str:
        """`matrix`: the queues; only one half of them where the other is not assigned yet."""
        return format_matrix(self.adapters, self.domains)

    def guest_matrix_text(self) -> str:
        """`guest_matrix`: what a guest gets or would get, in the same form."""
        return format_matrix(*self.guest_config())

    def control_domains_text(self) -> str:
        """`control_domains`."""
        return "".join(f"{one:04x}\n" for one in sorted(self.control_domains))

    def ap_config_text(self) -> str:
        """`ap_config`: the three masks."""
        return ",".join(map(format_mask, (self.adapters, self.domains, self.control_domains))) + "\n"

    def guest_config(self) -> tuple[Set[int], Set[int]]:
        """vfio_ap_mdev_filter_matrix: what the host has of it, less each adapter with a queue that vfio_ap has not
        (an adapter is hardware: single queues cannot be hidden)."""
        host = self.family.host
        domains = self.domains & host.domains
        adapters = self.adapters & host.adapters
        return {one for one in adapters if all(host.bound_to_vfio_ap((one, domain)) for domain in domains)}, domains


def _name(apqn: Apqn) -> str:
    return f"{apqn[0]:02x}.{apqn[1]:04x}"


def format_matrix(adapters: Set[int], domains: Set[int]) -> str:
    """Lines `05.0047`, adapters outer; `05.` without domains, `.0047` without adapters; nothing of neither."""
    outer = [f"{one:02x}" for one in sorted(adapters)] or [""]
    inner = [f"{one:04x}" for one in sorted(domains)] or [""]
    return "".join(f"{one}.{other}\n" for one in outer for other in inner if one or other)


def format_mask(bits: Set[int]) -> str:
    """`0x` and 64 hex digits; bit 0 is the leftmost."""
    return f"0x{sum(1 << (BITS - 1 - bit) for bit in bits):064x}"


def parse_mask(text: bytes) -> frozenset[int]:
    """ap_hex2bitmap: `0x` may be missing, short masks are filled with zeros on the right. Raises Refused EINVAL."""
    match = _HEX.match(text)
    if match is None:
        raise _malformed(text, f"a mask has up to {BITS // 4} hex digits, bit 0 first")
    value = int(match[1].ljust(BITS // 4, b"0"), 16)
    return frozenset(bit for bit in range(BITS) if value >> (BITS - 1 - bit) & 1)


def parse_config(data: bytes) -> tuple[frozenset[int], frozenset[int], frozenset[int]]:
    """The masks of a write to ap_config; a newline separates as a comma does, what follows the third is not read.

    Raises Refused EINVAL.
    """
    masks = re.split(rb"[,\n]", data.partition(b"\0")[0])
    if len(masks) < 3:
        raise _malformed(data, f"{len(masks)} of the 3 masks: adapters,domains,control domains")
    return parse_mask(masks[0]), parse_mask(masks[1]), parse_mask(masks[2])


def _malformed(data: bytes, rule: str) -> Refused:
    text = data.decode("latin-1")
    mend = "write three masks as ap_config reads them"
    return Refused("vfio-ap-malformed-masks", errno.EINVAL, rule=rule, source=text, side="source", mend=mend)
