"""Mdevs are in use, as by a guest that has the VFIO device open."""

from __future__ import annotations

from mdevfs.control.running import Running
from mdevfs.control.verbs import Answer, Verb, unknown
from mdevfs.mdev.mdev import Mdev


class _OfMdev(Verb):
    uuid: str

    def find(self, running: Running) -> Mdev:
        """Raises InputError. An mdev whose removal waits for its user is on no bus any more, but on its parent."""
        parents = running.host.mdev.parents.values()
        mdevs = {mdev.name: mdev for parent in parents for mdev in parent.mdevs}
        mdev = mdevs.get(self.uuid.lower())
        if mdev is None:
            raise unknown("mdev", self.uuid, mdevs)
        return mdev


class Use(_OfMdev):
    """Somebody opens the mdev: its removal waits, most of its parameters stay."""

    op = "use"

    async def carry_out(self, running: Running) -> Answer:
        self.find(running).use(True)
        return {"did": f"{self.uuid.lower()} is in use"}


class Release(_OfMdev):
    """Who had it open closes it."""

    op = "release"

    async def carry_out(self, running: Running) -> Answer:
        self.find(running).use(False)
        return {"did": f"{self.uuid.lower()} is not in use"}
