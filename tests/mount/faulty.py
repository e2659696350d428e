"""A vendor driver that tests write: the host that has it, and what the server's log says of it."""

from __future__ import annotations

import re

from tests.mount.server import Server

HEAD = """\
import errno
from pathlib import Path
from mdevfs.vendor import KernelError, MdevType, Reason, Refused, VendorDriver, Verdict, blocking, show, store

FIFO = Path(__file__).with_name("fifo")

class Faulty(VendorDriver):
    api = 1
    name = "faulty"
    pool = 100
"""
HOST = """\
[host]
drivers = ["./driver.py"]
[[device]]
driver = "faulty"
"""
PARENT = "devices/virtual/faulty/faulty"
TYPES = f"{PARENT}/mdev_supported_types"


def driver(*lines: str) -> str:
    """A driver's file: the class, and these lines in it."""
    return HEAD + "\n".join("    " + line for text in lines for line in text.split("\n")) + "\n"


def entries(server: Server) -> list[str]:
    """The log's entries since the last time, tracebacks included."""
    return [entry for entry in re.split(r"^(?=\d{4}-\d\d-\d\d )", server.news(), flags=re.MULTILINE) if entry]
