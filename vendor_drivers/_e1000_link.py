"""The link of an e1000 or e1000e: the cable, and what the registers say of it.

No field of the state holds the cable; as QEMU's, a state says it by the negotiation: over without a link means pulled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

STATUS_LU, LSC = 2, 4
PHY_RESTART, PHY_AUTONEG, PHY_DONE, PHY_LINK, PHY_PARTNER = 0x0200, 0x1000, 0x0020, 0x0004, 0x4000


def plugged_in(status: int, phy: Sequence[int]) -> bool:
    """What a state that was loaded says of the cable (e1000_post_load, e1000e_core_post_load)."""
    return bool(status & STATUS_LU or (phy[0] & PHY_AUTONEG and not phy[1] & PHY_DONE))


def give_up(state: Any, phy: list[int]) -> bool:
    """Before a save: without a cable nobody answers, so the negotiation is over (e1000_pre_save, e1000e_core_pre_save).
    Whether it was one."""
    given_up = not state.cable and bool(phy[0] & PHY_AUTONEG)
    if given_up:
        phy[1] |= PHY_DONE
    return given_up


class Link(ABC):
    """The link of a device over its state; `state.cable`: it is plugged in."""

    state: Any
    phy: list[int]

    @abstractmethod
    def __getitem__(self, name: str) -> int: ...

    @abstractmethod
    def __setitem__(self, name: str, value: int) -> None: ...

    @abstractmethod
    def interrupt(self, causes: int) -> None:
        """Raises causes."""

    def set_link(self, *, up: bool) -> None:
        """The link comes up, negotiated, or goes down (e1000x_update_regs_on_link_down)."""
        phy = self.phy
        self["STATUS"] = self["STATUS"] | STATUS_LU if up else self["STATUS"] & ~STATUS_LU
        phy[1] = phy[1] | PHY_LINK | PHY_DONE if up else phy[1] & ~(PHY_LINK | PHY_DONE)
        phy[5] = phy[5] | PHY_PARTNER if up else phy[5] & ~PHY_PARTNER

    def plug(self) -> None:
        """Somebody plugs the cable in (e1000_set_link_status)."""
        before, self.state.cable = self["STATUS"], True
        if self.phy[0] & PHY_AUTONEG and not self.phy[1] & PHY_DONE:
            self.set_link(up=False)  # until it is negotiated
        else:
            self["STATUS"] |= STATUS_LU
            self.phy[1] |= PHY_LINK
        self._tell(before)

    def pull(self) -> None:
        """Somebody pulls the cable."""
        before, self.state.cable = self["STATUS"], False
        self.set_link(up=False)
        self._tell(before)

    def _tell(self, before: int) -> None:
        if self["STATUS"] != before:
            self.interrupt(LSC)

    def negotiated(self) -> None:
        """What the other end of the cable brings about when autonegotiation has begun."""
        if self.state.cable and not self["STATUS"] & STATUS_LU and self.phy[0] & PHY_AUTONEG:
            self.set_link(up=True)
            self.interrupt(LSC)
