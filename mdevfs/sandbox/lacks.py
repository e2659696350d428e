"""What forbids private namespaces on a system, and what mends it. The words of `mdevfs run` and of `mdevfs doctor`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from mdevfs.errors import MachineError

CAP_SYS_ADMIN = 21  # linux/capability.h
WHO = os.geteuid()  # who asks: inside, everybody is root
_FILTERED = "2"  # "Seccomp:" of /proc/self/status: a filter is on, as in every container that does not ask for none

IN_A_CONTAINER = (
    "start the container with --privileged, or with --device /dev/fuse --cap-add SYS_ADMIN"
    " --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
)


TO_MEND = "; to mend: "


class Forbidden(MachineError):
    """The system refused `what`; the message goes on with what would permit it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}{TO_MEND}{mend()}")


@frozen
class Setting:
    """A sysctl that forbids user namespaces: its name, the value that does, one that does not, and whom it spares."""

    name: str
    forbids: str
    permits: str
    spares_root: bool
    or_else: str = ""

    @property
    def mend(self) -> str:
        return f"sysctl -w {self.name}={self.permits} (and in /etc/sysctl.d, to keep it){self.or_else}"


SETTINGS = (
    Setting("user.max_user_namespaces", "0", "15000", spares_root=False),
    Setting("kernel.unprivileged_userns_clone", "0", "1", spares_root=True),  # Debian's and Arch's kernels only
    Setting(
        "kernel.apparmor_restrict_unprivileged_userns",  # Ubuntu 23.10 and newer
        "1",
        "0",
        spares_root=True,
        or_else=", or an AppArmor profile for Python with `userns,`",
    ),
)


def forbidding(root: Path = Path("/"), uid: int = WHO) -> Iterator[Setting]:
    """The settings that forbid it to this user; `root` is where the system's files are."""
    for setting in SETTINGS:
        if uid == 0 and setting.spares_root:
            continue
        if _text(root / "proc/sys" / setting.name.replace(".", "/")) == setting.forbids:
            yield setting


def mend(root: Path = Path("/"), uid: int = WHO) -> str:
    """What would permit private namespaces where they were refused."""
    settings = [f"{one.name} is {one.forbids}: {one.mend}" for one in forbidding(root, uid)]
    return "; ".join(settings) or f"{_confined(root, uid)}{IN_A_CONTAINER}"


def _confined(root: Path, uid: int) -> str:
    status = dict(line.split(":\t", 1) for line in _text(root / "proc/self/status").splitlines() if ":\t" in line)
    if uid == 0 and not int(status.get("CapEff", "0"), 16) >> CAP_SYS_ADMIN & 1:
        return "root has no CAP_SYS_ADMIN here: "
    if status.get("Seccomp") == _FILTERED:
        return "a seccomp filter is on here: "
    return "in a container, "


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
