"""The recipe of an emulated machine: what is mounted where, in a mount namespace of one's own.

A tree of ours covers the parts of /sys that speak of devices, and all else below /sys is the real one, read-only; or,
hermetic, the tree is all of /sys. What clients write to (/run, /dev, the directories of mdevctl, driverctl and libvirt)
becomes private. Everything here changes the caller's mount namespace, raises MachineError, and goes with the namespace.
"""

from __future__ import annotations

import os
from pathlib import Path

from mdevfs.errors import MachineError
from mdevfs.mount.places import unescape
from mdevfs.sandbox.backstage import BACKSTAGE, DEV, LAYERS, REAL_DEV, REAL_SYS, RUN, STATE, TREE
from mdevfs.sandbox.dev import private_dev
from mdevfs.sandbox.namespaces import MS_NODEV, MS_NOEXEC, MS_NOSUID, bind, make_private, make_readonly, mount

COVERED = ("block", "bus", "class", "devices", "dev", "module", "kernel/iommu_groups", "kernel/debug/vfio")
# The real CPUs and memory, to be looked at only: nobody takes one offline from in here.
SYSTEM = "devices/system"
CGROUP = "fs/cgroup"

PRIVATE = {  # an empty directory of the machine -> where it lies in the state
    "/etc/mdevctl.d": "mdevctl.d",
    "/etc/driverctl.d": "driverctl.d",
    "/var/lib/libvirt": "lib",
    "/var/cache/libvirt": "cache",
    "/var/log/libvirt": "log",
}
INSIDE = ("mdevctl.d/scripts.d/callouts", "mdevctl.d/scripts.d/notifiers")  # mdevctl wants them to exist
LAYERED = ("/etc/libvirt",)  # what is there is seen, what is written stays in the machine


def set_backstage(keep: Path | None) -> None:
    """Before the tree is mounted: private mounts, and room for the tree and the state; `keep` holds the state."""
    kept = os.open(keep, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if keep is not None else None
    make_private()
    mount("tmpfs", BACKSTAGE, "mode=755")
    for place in (TREE, STATE, DEV, REAL_SYS, REAL_DEV, RUN, LAYERS):
        place.mkdir(parents=True)
    mount("tmpfs", DEV, "mode=755", MS_NOSUID)
    mount("tmpfs", RUN, "mode=755")
    if kept is not None:
        bind(Path(f"/proc/self/fd/{kept}"), STATE)
        os.close(kept)


def build(hermetic: bool) -> None:
    """Once the tree is mounted: the machine, from the top of /sys to the last private directory."""
    cover_sys(hermetic)
    fresh_proc()
    private_dev()
    for target, name in PRIVATE.items():
        private_directory(Path(target), STATE / name)
    for name in INSIDE:
        (STATE / name).mkdir(parents=True, exist_ok=True)
    for target in LAYERED:
        private_layer(Path(target))
    private_run()


def cover_sys(hermetic: bool) -> None:
    """The tree over /sys or over its parts, and what stays real."""
    bind(Path("/sys"), REAL_SYS)
    if hermetic:
        bind(TREE, Path("/sys"))
        if is_directory(REAL_SYS / CGROUP):
            bind(REAL_SYS / CGROUP, Path("/sys") / CGROUP)
    else:
        protect_rest()
        for part in COVERED:
            cover_part(part)
    bind(REAL_SYS / SYSTEM, Path("/sys") / SYSTEM)
    make_readonly(Path("/sys") / SYSTEM)


def protect_rest() -> None:
    """What stays real below /sys takes no writes, root's neither: a suspend would be the whole machine's. The top keeps
    them, as a read-only /sys is taken for a container's (path_is_read_only_fs in systemd); so do cgroups."""
    sys = Path("/sys")
    for place in sys.iterdir():
        if place.name not in COVERED and place.is_dir():
            bind(place, place)
            make_readonly(place)
    for place in mount_points():
        # Not those that nobody comes to: covered by another mount, or below a directory of the real root's alone.
        if sys in place.parents and sys / CGROUP not in (place, *place.parents) and os.path.ismount(place):
            make_readonly(place)


def cover_part(part: str) -> None:
    """Binds a part of the tree over /sys; where the real one has no such directory, the directory above it."""
    if not is_directory(TREE / part):
        return
    place = Path(part)
    while not is_directory("/sys" / place):
        place = place.parent
    bind(TREE / place, "/sys" / place)


def is_directory(path: Path) -> bool:
    """Whether there is such a directory, for us: an ordinary user cannot look into debugfs."""
    try:
        return path.is_dir()
    except PermissionError:
        return False


def fresh_proc() -> None:
    """The PID namespace's own /proc; where a container masks parts of /proc, the kernel insists on the old one."""
    try:
        mount("proc", Path("/proc"), flags=MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except MachineError:
        if not Path("/proc/self").exists():
            raise


def private_directory(target: Path, source: Path) -> None:
    """`source` shows at `target`. A missing target is given all the same, in a private layer over the directory above
    it: clients make it themselves, and then on the host."""
    source.mkdir(parents=True, exist_ok=True)
    if not target.is_dir():
        if not private_layer(next(above for above in target.parents if above.is_dir())):
            return
        target.mkdir(parents=True)
    bind(source, target)


def private_layer(directory: Path) -> bool:
    """From here on what is written to `directory` stays in the machine; what is mounted below it stays where it is.

    False, and nothing has changed, where there is no such directory, or the kernel cannot do it: in a user namespace
    overlayfs came with 5.11.
    """
    layer = LAYERS / directory.relative_to("/")
    upper, work, real = (layer / f".{name}" for name in ("upper", "work", "real"))
    if upper.exists() or not directory.is_dir():
        return upper.exists()
    for part in (upper, work, real):
        part.mkdir(parents=True, exist_ok=True)
    below = [path for path in mount_points() if directory in path.parents]
    bind(directory, real)
    try:
        mount("overlay", directory, f"lowerdir={directory},upperdir={upper},workdir={work},userxattr")
    except MachineError:
        upper.rmdir()
        return False
    for path in below:
        bind(real / path.relative_to(directory), path)
    return True


def mount_points() -> list[Path]:
    """Where something is mounted, the outer before the inner."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(unescape(line.split()[4])) for line in lines]


def private_run() -> None:
    """A /run with little but the control socket, which takes all of the above out of sight."""
    for name in ("lock", "user", "libvirt"):
        (RUN / name).mkdir()
    bind(RUN, BACKSTAGE)
