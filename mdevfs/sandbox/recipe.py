"""The recipe of an emulated machine: what is mounted where, in a mount namespace of one's own.

A tree of ours covers the parts of /sys that speak of devices; all else below /sys stays the real one, and what
clients write to (/run, /dev, the directories of mdevctl, driverctl and libvirt) becomes private. Everything here
changes the caller's mount namespace, raises MachineError, and goes with the namespace.
"""

from __future__ import annotations

import os
from pathlib import Path

from mdevfs.errors import MachineError
from mdevfs.sandbox.namespaces import MS_NODEV, MS_NOEXEC, MS_NOSUID, bind, make_private, mount

# A directory that every machine has and every command gets a private one of: what is mounted below the first private
# one is out of the command's sight, and needs no directory on the host.
BACKSTAGE = Path("/run")
TREE = BACKSTAGE / "tree"
STATE = BACKSTAGE / "state"
REAL_SYS = BACKSTAGE / "sys"
REAL_DEV = BACKSTAGE / "dev"

COVERED = ("bus", "class", "devices", "dev", "module", "kernel/iommu_groups", "kernel/debug/vfio")
REAL = "devices/system"

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}

PRIVATE = {  # a directory of the machine -> where its private one lies in the state
    "/etc/mdevctl.d": "mdevctl.d",
    "/etc/driverctl.d": "driverctl.d",
    "/var/lib/libvirt": "lib",
    "/var/cache/libvirt": "cache",
    "/var/log/libvirt": "log",
}
MADE = "/etc"  # what is missing there is given all the same: clients make it themselves, and then on the host
INSIDE = ("mdevctl.d/scripts.d/callouts", "mdevctl.d/scripts.d/notifiers")  # mdevctl wants them to exist


def set_backstage(keep: Path | None) -> None:
    """Before the tree is mounted: private mounts, and room for the tree and the state; `keep` holds the state."""
    kept = os.open(keep, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if keep is not None else None
    make_private()
    mount("tmpfs", BACKSTAGE, "mode=755")
    for place in (TREE, STATE, REAL_SYS, REAL_DEV):
        place.mkdir()
    if kept is not None:
        bind(Path(f"/proc/self/fd/{kept}"), STATE)
        os.close(kept)


def build() -> None:
    """Once the tree is mounted: the machine, from the top of /sys to the last private directory."""
    bind(Path("/sys"), REAL_SYS)
    for part in COVERED:
        cover_sys(part)
    if (REAL_SYS / REAL).is_dir():
        bind(REAL_SYS / REAL, Path("/sys") / REAL)
    fresh_proc()
    private_dev()
    for target, name in PRIVATE.items():
        private_directory(Path(target), STATE / name)
    for name in INSIDE:
        (STATE / name).mkdir(parents=True, exist_ok=True)
    private_run()


def cover_sys(part: str) -> None:
    """Binds a part of the tree over /sys; where the real one has no such directory, the directory above it."""
    if not (TREE / part).is_dir():
        return
    place = Path(part)
    while not ("/sys" / place).is_dir():
        place = place.parent
    bind(TREE / place, "/sys" / place)


def fresh_proc() -> None:
    """The PID namespace's own /proc; where a container masks parts of /proc, the kernel insists on the old one."""
    try:
        mount("proc", Path("/proc"), flags=MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except MachineError:
        if not Path("/proc/self").exists():
            raise


def private_dev() -> None:
    """A /dev with nothing in it that could touch the host's hardware."""
    dev, terminal = Path("/dev"), terminal_name()
    bind(dev, REAL_DEV)
    mount("tmpfs", dev, "mode=755", MS_NOSUID)
    for name in DEVICES:
        if (REAL_DEV / name).exists():
            (dev / name).touch()
            bind(REAL_DEV / name, dev / name)
    if terminal is not None:
        (dev / "console").touch()
        bind(REAL_DEV / terminal, dev / "console")
    (dev / "pts").mkdir()
    mount("devpts", dev / "pts", "newinstance,ptmxmode=0666,mode=620", MS_NOSUID | MS_NOEXEC)
    (dev / "shm").mkdir()
    mount("tmpfs", dev / "shm", "mode=1777")
    for name, target in LINKS.items():
        (dev / name).symlink_to(target)


def terminal_name() -> str | None:
    """The name below /dev of the terminal on standard input, so that ttyname(3) finds it as /dev/console."""
    try:
        return os.path.relpath(os.ttyname(0), "/dev")
    except OSError:
        return None


def private_directory(target: Path, source: Path) -> None:
    """`source` shows at `target`; for what /etc lacks, a private layer over it takes the name."""
    source.mkdir(parents=True, exist_ok=True)
    if not target.is_dir():
        if target.parent != Path(MADE):
            return
        private_layer(target.parent)
        target.mkdir()
    bind(source, target)


def private_layer(directory: Path) -> None:
    """From here on what is written to `directory` stays in the machine; what is mounted below it stays where it is."""
    layer, real = BACKSTAGE / "layer", BACKSTAGE / "real"
    if layer.exists():
        return
    for part in (layer / "upper", layer / "work", real):
        part.mkdir(parents=True)
    below = [path for path in mount_points() if directory in path.parents]
    bind(directory, real)
    options = f"lowerdir={directory},upperdir={layer}/upper,workdir={layer}/work,userxattr"
    mount("overlay", directory, options)
    for path in below:
        bind(real / path.relative_to(directory), path)


def mount_points() -> list[Path]:
    """Where something is mounted, the outer before the inner."""
    escaped = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [Path(os.fsdecode(path.encode().decode("unicode_escape").encode("latin-1"))) for path in escaped]


def private_run() -> None:
    """An empty /run, which takes all of the above out of sight."""
    mount("tmpfs", BACKSTAGE, "mode=755")
    for name in ("lock", "user", "udev/rules.d", "libvirt"):
        (BACKSTAGE / name).mkdir(parents=True)
    # systemd-udevd would ask for kernel modules by the emulated devices' modalias.
    (BACKSTAGE / "udev/rules.d/80-drivers.rules").symlink_to("/dev/null")
