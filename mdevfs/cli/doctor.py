"""`mdevfs doctor`: what this machine lacks, and the package or setting that mends it.

    doctor(json: bool) -> int      prints the checks, returns the exit code
    checks(root=..., uid=...) -> list[Check]

Nothing here needs FUSE or a host, so that it works where nothing else does.
Every file is looked for below `root`: a test hands in a directory that holds a machine of its own.
"""

from __future__ import annotations

import importlib
import json as _json
import os
import sys
import sysconfig
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import attrs

from mdevfs.errors import EXIT_MACHINE, EXIT_YES
from mdevfs.sandbox import lacks
from mdevfs.sandbox.enter import refusal

OLDEST_PYTHON = (3, 11)
RUN = "mdevfs run"
SETUID = 0o4000

INSTALL = {"debian": "apt install", "fedora": "dnf install", "arch": "pacman -S"}
PACKAGES = {
    "fuse": {"debian": "fuse3", "fedora": "fuse3", "arch": "fuse3"},
    "fuse headers": {"debian": "libfuse3-dev", "fedora": "fuse3-devel", "arch": "fuse3"},
    "gcc": {"debian": "gcc", "fedora": "gcc", "arch": "gcc"},
    "pkg-config": {"debian": "pkg-config", "fedora": "pkgconf-pkg-config", "arch": "pkgconf"},
    "python headers": {"debian": "python3-dev", "fedora": "python3-devel", "arch": "python"},
    "udev": {"debian": "udev", "fedora": "systemd-udev", "arch": "systemd"},
}
PKG_CONFIG_DIRS = (
    "usr/lib/pkgconfig",
    "usr/lib64/pkgconfig",
    "usr/lib/*/pkgconfig",
    "usr/local/lib*/pkgconfig",
)


@attrs.frozen
class Check:
    """One thing looked at. `mend` is empty where `ok`; `needed` says that mdevfs cannot mount without it."""

    name: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


@attrs.frozen
class Machine:
    """What the checks look at: the files below `root`, as the user `uid` (0 is root) with Python `python`."""

    root: Path = Path("/")
    uid: int = attrs.field(factory=os.geteuid)
    python: tuple[int, int] = (sys.version_info.major, sys.version_info.minor)

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str:
        """The file's text without surrounding white space; empty where it cannot be read."""
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError:
            return ""

    def program(self, name: str, *places: str) -> Path | None:
        """Where the program is: in `places`, else in PATH and in the directories of the administrator's programs."""
        for directory in places or [*os.get_exec_path(), "/usr/bin", "/usr/sbin", "/sbin"]:
            candidate = self.path(directory) / name
            if may(candidate, os.X_OK) and candidate.is_file():
                return candidate
        return None

    def package(self, what: str) -> str:
        """The command that installs `what` here, or each distribution's where this one is not known."""
        names = PACKAGES[what]
        fields = dict(line.split("=", 1) for line in self.text("etc/os-release").splitlines() if "=" in line)
        family = (fields.get("ID", "") + " " + fields.get("ID_LIKE", "")).replace('"', " ").split()
        known = [f"{INSTALL[name]} {names[name]}" for name in names if name in family]
        return known[0] if known else ", or ".join(f"{INSTALL[name]} {names[name]}" for name in names)


def may(path: Path, right: int) -> bool:
    """Whether the file can be reached and used; false, not an error, behind a directory closed to us."""
    return os.access(path, right, effective_ids=True)


def checks(root: Path = Path("/"), uid: int | None = None) -> list[Check]:
    """Every check, in the order to mend them in. `uid` is who would mount; absent means who asks."""
    machine = Machine(root) if uid is None else Machine(root, uid)
    return list(examine(machine))


def examine(machine: Machine) -> Iterator[Check]:
    yield check_linux(machine)
    yield check_python(machine)
    yield check_pyfuse3(machine)
    yield check_fuse_device(machine)
    yield check_mount_right(machine)
    yield check_fusermount(machine)
    yield check_allow_other(machine)
    yield from check_build_tools(machine)
    yield check_namespaces(machine)
    yield check_udevd(machine)


def check_linux(machine: Machine) -> Check:
    system = machine.text("proc/sys/kernel/ostype")
    if system == "Linux":
        return Check("Linux", True, machine.text("proc/sys/kernel/osrelease"))
    return Check("Linux", False, "/proc/sys/kernel/ostype does not say Linux", "run mdevfs on Linux, or in a Linux VM")


def check_python(machine: Machine) -> Check:
    version = ".".join(map(str, machine.python))
    if machine.python >= OLDEST_PYTHON:
        return Check("Python", True, version)
    return Check("Python", False, f"{version} is older than 3.11", "install Python 3.11 or newer")


def check_pyfuse3(machine: Machine) -> Check:
    try:
        module = importlib.import_module("pyfuse3")
    except Exception as error:  # a broken build can raise anything; the user needs its words, not its traceback
        build = machine.package("fuse headers")
        return Check("pyfuse3", False, f"cannot be imported: {error}", f"{build}; then: pip install 'pyfuse3>=3.5'")
    if hasattr(module.Operations, "poll"):
        return Check("pyfuse3", True, str(getattr(module, "__version__", "")))
    return Check("pyfuse3", False, "too old: it has no poll", "pip install 'pyfuse3>=3.5'")


def check_fuse_device(machine: Machine) -> Check:
    """Opened, not only looked at: a container's device rules refuse the open of a node that is there."""
    try:
        os.close(os.open(machine.path("dev/fuse"), os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        mend = "modprobe fuse; in a container, start it with --device /dev/fuse"
        return Check("/dev/fuse", False, "is not there", mend)
    except OSError as error:
        mend = "chmod 666 /dev/fuse; in a container, start it with --device /dev/fuse"
        return Check("/dev/fuse", False, f"cannot be opened: {error.strerror}", mend)
    return Check("/dev/fuse", True, "can be opened")


def check_mount_right(machine: Machine) -> Check:
    name = "right to mount"
    if machine.uid != 0:
        return Check(name, True, "an ordinary user mounts through fusermount3")
    for line in machine.text("proc/self/status").splitlines():
        field, _, value = line.partition(":")
        if field == "CapEff":
            if int(value, 16) >> lacks.CAP_SYS_ADMIN & 1:
                return Check(name, True, "root with CAP_SYS_ADMIN")
            return Check(name, False, "root without CAP_SYS_ADMIN", "start the container with --cap-add SYS_ADMIN")
    return Check(name, False, "/proc/self/status names no CapEff", "mount -t proc proc /proc")


def check_fusermount(machine: Machine) -> Check:
    """Root mounts without it; everybody else goes through it, and it must be setuid root for them."""
    needed = machine.uid != 0
    program = machine.program("fusermount3")
    if program is None:
        return Check("fusermount3", False, "is not in PATH", machine.package("fuse"), needed)
    where = "/" + str(program.relative_to(machine.root))
    if needed and not program.stat().st_mode & SETUID:
        return Check("fusermount3", False, f"{where} is not setuid root", f"chmod u+s {where}")
    return Check("fusermount3", True, where, needed=needed)


def check_allow_other(machine: Machine) -> Check:
    name = "user_allow_other"
    lines = [line.strip() for line in machine.text("etc/fuse.conf").splitlines()]
    if machine.uid == 0:
        return Check(name, True, "not needed by root", needed=False)
    if name in lines:
        return Check(name, True, "set in /etc/fuse.conf", needed=False)
    detail = "not set in /etc/fuse.conf: other users, root too, cannot enter the mounts of an ordinary user"
    return Check(name, False, detail, "echo user_allow_other >> /etc/fuse.conf", needed=False)


def check_build_tools(machine: Machine) -> Iterator[Check]:
    """What pip needs to build pyfuse3; advice, as it is no longer needed once pyfuse3 is there."""
    python_header = Path(sysconfig.get_paths()["include"], "Python.h")
    compiler = machine.program("gcc") or machine.program("cc")
    pkg_config_files = [
        file
        for place in PKG_CONFIG_DIRS
        for file in glob(f"{place}/fuse3.pc", root_dir=machine.root)  # noqa: PTH207 - Path.glob raises where closed
    ]
    found = {
        "gcc": compiler is not None,
        "pkg-config": machine.program("pkg-config") is not None,
        "fuse headers": bool(pkg_config_files),
        "python headers": may(machine.path(str(python_header)), os.R_OK),
    }
    for name, ok in found.items():
        detail = "found" if ok else "not found: pip cannot build pyfuse3"
        yield Check(name, ok, detail, "" if ok else machine.package(name), needed=False)


def check_namespaces(machine: Machine) -> Check:
    """Tried; where the files are not this system's, its settings have to say it."""
    if machine.root == Path("/"):
        refused, _, mend = refusal().partition(lacks.TO_MEND)
    else:
        settings = [f"{one.name} = {one.forbids}" for one in lacks.forbidding(machine.root, machine.uid)]
        refused = f"forbidden by {', '.join(settings)}" if settings else ""
        mend = lacks.mend(machine.root, machine.uid) if settings else ""
    return Check(RUN, not refused, refused or "private namespaces can be made", mend, needed=False)


def check_udevd(machine: Machine) -> Check:
    program = machine.program("systemd-udevd", "/usr/lib/systemd", "/lib/systemd")
    if program is not None:
        return Check("systemd-udevd", True, "/" + str(program.relative_to(machine.root)), needed=False)
    detail = "not installed: in mdevfs run a stand-in takes its place, which applies no rules"
    return Check("systemd-udevd", False, detail, machine.package("udev"), needed=False)


def doctor(json: bool) -> int:
    """Print the checks, as one JSON object if `json`. Returns 0 when mdevfs can mount here, else 3."""
    found = checks()
    able = all(check.ok for check in found if check.needed)
    if json:
        print(_json.dumps({"schema": 1, "ok": able, "checks": [attrs.asdict(check) for check in found]}, indent=2))
    else:
        print("\n".join(lines(found)))
    return EXIT_YES if able else EXIT_MACHINE


def lines(found: list[Check]) -> Iterator[str]:
    width = max(len(check.name) for check in found)
    for check in found:
        word = "ok" if check.ok else "MISSING" if check.needed else "advice"
        yield f"{word:<8}{check.name:<{width}}  {check.detail}"
        if check.mend:
            yield f"{'':<8}{'':<{width}}  to mend: {check.mend}"
    lacking = [check.name for check in found if check.needed and not check.ok]
    if lacking:
        yield f"mdevfs cannot mount here: mend {', '.join(lacking)}"
    elif all(check.ok for check in found if check.name == RUN):
        yield "mdevfs can mount here, and run commands on emulated machines"
    else:
        yield "mdevfs can mount here, but not run"
