"""Into private namespaces: the first step of `mdevfs run`, and what `mdevfs doctor` tries. No FUSE, no host."""

from __future__ import annotations

import os

from mdevfs.errors import MachineError, MdevfsError
from mdevfs.sandbox import namespaces
from mdevfs.sandbox.backstage import BACKSTAGE
from mdevfs.sandbox.processes import Word, child


def enter(own_network: bool) -> None:
    """Moves this process into a user, a mount and, if asked, a network namespace of its own."""
    uid, gid, me = os.geteuid(), os.getegid(), os.getpid()
    start, started = os.pipe()
    word = Word()

    def map_ids() -> int:  # root's maps are written from the namespace above
        os.close(started)
        if os.read(start, 1):
            try:
                namespaces.map_ids(me, uid, gid)
                word.ready()
            except MdevfsError as error:
                word.failed(error)
        return 0

    mapper = child(map_ids)
    try:
        network = namespaces.CLONE_NEWNET if own_network else 0
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS | network)
        namespaces.prctl(namespaces.PR_SET_DUMPABLE, 1)  # else /proc/<pid>/uid_map is not the mapper's to write
        os.write(started, b"x")
    finally:
        os.close(started)
        os.close(start)
        try:
            mapped = word.hear()
        finally:
            os.waitpid(mapper, 0)
    if not mapped:
        raise MachineError("nobody wrote the user id maps: the process for it was killed")
    if own_network:
        namespaces.raise_loopback()


def refusal() -> str:
    """What a machine would fail with on this system, up to its first mount; empty when nothing. Changes nothing."""
    word = Word()

    def work() -> int:
        try:
            enter(own_network=True)
            namespaces.unshare(namespaces.CLONE_NEWPID)
            namespaces.make_private()
            namespaces.mount("tmpfs", BACKSTAGE)
            word.ready()
        except MdevfsError as error:
            word.failed(error)
        return 0

    tried = child(work)
    try:
        return "" if word.hear() else "the process that tried it was killed"
    except MdevfsError as error:
        return str(error)
    finally:
        os.waitpid(tried, 0)
