"""The machine's udevd: systemd's own, or a small stand-in for it, so that libudev's clients hear of events.

Both are started in the machine, as its root, and end with it.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mdevfs.errors import MachineError, escape
from mdevfs.sandbox.mini_udevd import MiniUdevd
from mdevfs.sandbox.processes import child, go_backstage

WAYS = ("real", "mini", "none")
PROGRAMS = (Path("/usr/lib/systemd/systemd-udevd"), Path("/lib/systemd/systemd-udevd"))
RUN = Path("/run/udev")
RULES = RUN / "rules.d"
PACKAGED = (Path("/usr/lib/udev/rules.d/60-mdevctl.rules"), Path("/lib/udev/rules.d/60-mdevctl.rules"))
NAMED_BY_DEBIAN = "/usr/sbin/mdevctl"  # in the rule of Debian 12's package, which has it in /usr/bin

# Coldplug is for what is there before udevd is. Mdevs come later, on a machine that is up; those that a host has from
# the start would cost some milliseconds each here.
NOT_AT_BOOT = ("mdev", "vfio", "vfio-dev")
PATIENCE = 30  # seconds for coldplug


def program() -> Path | None:
    """systemd-udevd, where it is installed."""
    return next((path for path in PROGRAMS if os.access(path, os.X_OK)), None)


def choose(wanted: str | None, own_network: bool) -> str:
    """One of WAYS. In the caller's network there is none: it would act on the host's own events.

    Raises MachineError where systemd-udevd is wanted and not installed.
    """
    if not own_network:
        return "none"
    if wanted == "real" and program() is None:
        raise MachineError("--udevd=real: systemd-udevd is not installed (Debian's package udev); --udevd=mini does")
    return wanted or ("real" if program() is not None else "mini")


def start(way: str, environment: Mapping[str, str], log: int, mask: set[int]) -> None:
    """Starts it, in the machine; returns when it hears events. Raises MachineError.

    `environment` is what libudev's programs need here, `log` an open file for what it says, `mask` its signal mask.
    """
    if way == "none":
        return
    RULES.mkdir(parents=True)
    if way == "mini":
        mini = MiniUdevd(RUN)
        child(lambda: _be_mini(mini))
        mini.close()
        return
    lay_rules(environment)
    _start_real(environment, log, mask)
    _coldplug(environment, log)


def lay_rules(environment: Mapping[str, str]) -> None:
    """Where the rules of an ordinary system do harm, or nothing, here."""
    # It would ask for kernel modules by the emulated devices' modalias.
    (RULES / "80-drivers.rules").symlink_to(os.devnull)
    mdevctl, there = shutil.which("mdevctl"), Path(NAMED_BY_DEBIAN).exists()
    shipped = next((path for path in PACKAGED if path.exists()), None)
    if mdevctl is not None and shipped is not None and not there:
        (RULES / shipped.name).write_text(shipped.read_text().replace(NAMED_BY_DEBIAN, mdevctl))
    # What a rule runs has the event's properties as its environment, and no other.
    extra = [f'ENV{{{name}}}="{value}"\n' for name, value in environment.items()]
    (RULES / "00-mdevfs.rules").write_text("".join(extra))


def _be_mini(mini: MiniUdevd) -> int:
    go_backstage()
    mini.serve()
    return 0


def _start_real(environment: Mapping[str, str], log: int, mask: set[int]) -> None:
    path = program()
    assert path is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ready:
        ready.bind("")  # the kernel chooses an abstract name
        udevd = subprocess.Popen(
            [path],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.defpath, **environment, "NOTIFY_SOCKET": "@" + ready.getsockname()[1:].decode()},
            cwd="/",
            start_new_session=True,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        )
        ended = os.pidfd_open(udevd.pid)
        heard, _, _ = select.select([ready.fileno(), ended], [], [])
        os.close(ended)
        if ready.fileno() not in heard:
            raise MachineError(f"{path} ended before it was ready: {_last_line(log)}; --udevd=mini does without it")


def _coldplug(environment: Mapping[str, str], log: int) -> None:
    command = ["udevadm", "trigger", "--action=add", "--settle"]
    command += [f"--subsystem-nomatch={name}" for name in NOT_AT_BOOT]
    env = {"PATH": os.defpath, **environment}
    try:
        done = subprocess.run(command, stdout=log, stderr=log, env=env, cwd="/", timeout=PATIENCE, check=False)
        failed = f"ended with {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        failed = f"took longer than {PATIENCE} s"
    if failed:
        raise MachineError(f"{' '.join(command[:2])} {failed}: {_last_line(log)}; --udevd=mini does without it")


def _last_line(log: int) -> str:
    size = os.fstat(log).st_size
    lines = os.pread(log, 4096, max(0, size - 4096)).decode(errors="replace").split("\n")
    return escape(lines[-2] if len(lines) > 1 else "it said nothing")
