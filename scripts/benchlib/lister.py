"""Inside `mdevfs run`: for each line on standard input, the nanoseconds of one `mdevctl list`.

`live` is the machine's tree, `static` a copy of it in tmpfs, in a mount namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter_ns

from mdevfs.sandbox.namespaces import CLONE_NEWNS, bind, mount, unshare

COPY = Path("/run/copy")
PARTS = ("bus", "class", "devices", "kernel/iommu_groups")


def copy_tree() -> None:
    """What can be read, as it is now; a file whose read fails is empty."""
    COPY.mkdir()
    mount("tmpfs", COPY)
    for part in PARTS:
        for directory, folders, files in os.walk(f"/sys/{part}"):
            place = COPY / Path(directory).relative_to("/sys")
            place.mkdir(parents=True, exist_ok=True)
            for name in (*folders, *files):
                path = Path(directory, name)
                if path.is_symlink():
                    (place / name).symlink_to(path.readlink())
                elif name in files and path.stat().st_mode & 0o400:
                    with suppress(OSError):
                        shutil.copyfile(path, place / name)
            folders[:] = [name for name in folders if directory != "/sys/devices" or name != "system"]


def listing() -> int:
    begin = perf_counter_ns()
    done = subprocess.run(["mdevctl", "list"], stdout=subprocess.PIPE, check=True)
    took = perf_counter_ns() - begin
    assert done.stdout.count(b"\n") >= len(os.listdir("/sys/bus/mdev/devices"))
    return took


class Static:
    """A child in the namespace where the copy covers the tree; both are made when first asked for."""

    def __init__(self) -> None:
        copy_tree()
        asked, self._ask = os.pipe()
        answers, answer = os.pipe()
        if os.fork() == 0:
            os.close(self._ask)
            unshare(CLONE_NEWNS)
            for part in PARTS:
                bind(COPY / part, Path("/sys") / part)
            while os.read(asked, 1):
                os.write(answer, f"{listing()}\n".encode())
            os._exit(0)
        self._answers = os.fdopen(answers)

    def listing(self) -> int:
        os.write(self._ask, b"x")
        return int(self._answers.readline())


def main() -> None:
    if shutil.which("mdevctl") is None:
        sys.exit(1)
    static = None
    for line in sys.stdin:
        if line.strip() == "live":
            print(listing(), flush=True)
        else:
            static = static or Static()
            print(static.listing(), flush=True)


if __name__ == "__main__":
    main()
