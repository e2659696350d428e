"""`kernel/debug/vfio/<device>/migration/{state,features}` (drivers/vfio/debugfs.c, since 6.8 and 6.18): the family
`debugfs`."""

from __future__ import annotations

import stat
from collections.abc import Sequence

from mdevfs.bus.vfio import VfioCore
from mdevfs.mdev.mdev import Mdev
from mdevfs.mdev.state_entries import state_of
from mdevfs.state.machine import FEATURES
from mdevfs.sysfs.entries import Attribute, Directory, Entry, Folder

SINCE = "6.8"
FEATURES_SINCE = "6.18"


class DebugFs(Folder):
    """The root of debugfs, which only root may enter (fs/debugfs/inode.c, DEBUGFS_DEFAULT_MODE)."""

    __slots__ = ()
    mode = stat.S_IFDIR | 0o700


class VfioDebug(Directory):
    """`debug/vfio`: a directory for each device that VFIO has and that migrates."""

    __slots__ = ("vfio",)

    def __init__(self, vfio: VfioCore) -> None:
        self.vfio = vfio

    def _migrating(self) -> list[Mdev]:
        owners = (record.device for record in self.vfio.groups.records.values())
        return [one for one in owners if isinstance(one, Mdev) and one.parent.driver.migrates]

    def lookup(self, name: str) -> Entry | None:
        mdev = next((one for one in self._migrating() if one.name == name), None)
        if mdev is None:
            return None
        files: dict[str, Entry] = {"state": Attribute(lambda: f"{state_of(mdev)}\n")}
        if mdev.core.kernel.since(FEATURES_SINCE):
            offered = mdev.parent.driver.migration_features
            files["features"] = Attribute(lambda: "".join(f"{name}\n" for name in FEATURES if name in offered))
        return Folder({"migration": Folder(files)}, salt=mdev.salt)

    def scan(self) -> Sequence[tuple[str, int, int]]:
        return [(one.name, Directory.mode, one.salt) for one in self._migrating()]
