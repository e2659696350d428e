"""uevents over netlink: into a private network namespace as the kernel's own, and never into the machine's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden.test_uevents import recorded
from tests.mount.conftest import Mount
from tests.mount.server import LIMIT, MTTY, Server, mdevfs, mounts, new_uuid, write

HOST = "kernel-samples"
TYPE = f"{MTTY}/mdev_supported_types/mtty-1"
U1 = "a1b2c3d4-0001-4abc-8def-0123456789ab"
SYNTHETIC = new_uuid(7)

# A listener as udevd is one, in another process: each message as a JSON list of its strings, and whether what it names
# was there at once. A line on standard input ends it.
LISTENER = """
import json, os, select, socket, sys
root = sys.argv[1]
sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
sock.bind((0, 1))
print("up", flush=True)
while True:
    readable, _, _ = select.select([sock, 0], [], [])
    if sock in readable:
        lines = sock.recv(65536).rstrip(b"\\0").decode().split("\\0")
        found = os.path.lexists(root + lines[0].partition("@")[2])
        print(json.dumps([found, lines]), flush=True)
    elif 0 in readable:
        break
"""


LOOKER = "import os, sys; print(flush=True)\nwhile True: os.path.lexists(sys.argv[1])"
ROUNDS = 50


class Listening:
    """Hears what is broadcast in a process's namespaces, until it is asked for it."""

    def __init__(self, root: Path, prefix: tuple[str, ...] = ()) -> None:
        command = (*prefix, sys.executable, "-c", LISTENER, str(root))
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"

    def next(self) -> tuple[bool, list[str]]:
        """The next message, waited for."""
        assert self.process.stdout is not None
        found, lines = json.loads(self.process.stdout.readline())
        return found, lines

    def heard(self) -> list[tuple[bool, list[str]]]:
        """Everything so far; a message is in the socket before the write that caused it returns."""
        out, _ = self.process.communicate("\n", LIMIT)
        return [(found, lines) for found, lines in map(json.loads, out.splitlines())]


def messages(heard: list[tuple[bool, list[str]]]) -> list[tuple[str, list[str]]]:
    """Header and keys, the number masked as in the recordings. Numbers must rise."""
    numbers = [int(lines[-1].removeprefix("SEQNUM=")) for _, lines in heard]
    assert numbers == sorted(set(numbers))
    return [(lines[0], [*lines[1:-1], "SEQNUM=*"]) for _, lines in heard]


def kernels(action: str) -> list[tuple[str, list[str]]]:
    """What the kernel sent for a recorded action."""
    (found,) = (one for one in recorded() if one.action == action)
    assert found.messages
    return [(message.header, _no_numbers(message.env)) for message in found.messages]


def _no_numbers(env: list[str]) -> list[str]:
    return ["MAJOR=*" if line.startswith("MAJOR=") else line for line in env]


@pytest.fixture
def private() -> Iterator[tuple[str, ...]]:
    """What runs a command in a network namespace whose owner is a user namespace of its own, uids kept."""
    holder = subprocess.Popen(
        ("unshare", "-U", "-m", "-n", "--propagation", "private", "sh", "-c", "echo up; read line"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    if holder.stdout.readline() != b"up\n":
        holder.wait()
        pytest.skip("needs user namespaces: unshare -U -m -n fails")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{holder.pid}/{name}").write_text("0 0 65536")
    yield ("nsenter", "-U", "-m", "-n", "-S", "0", "-G", "0", "-t", str(holder.pid))
    holder.communicate(b"\n", LIMIT)


def network(private: tuple[str, ...]) -> tuple[str, ...]:
    """What runs a command in its network only, so that it sees the mounts out here."""
    return ("nsenter", "-n", *private[-2:])


def inside(private: tuple[str, ...]) -> str:
    """The network namespace's path."""
    return f"/proc/{private[-1]}/ns/net"


def ours(heard: list[tuple[bool, list[str]]]) -> list[tuple[bool, list[str]]]:
    return [one for one in heard if "/mtty" in one[1][0]]


@pytest.fixture
def sending(mount: Mount, private: tuple[str, ...]) -> Server:
    """A host mounted outside that sends into the private namespace."""
    return mount(HOST, "--uevents", inside(private))


def test_create_and_remove_as_the_kernel(sending: Server, private: tuple[str, ...]) -> None:
    listening, outside = Listening(sending.root, network(private)), Listening(sending.root)
    write(sending.root / TYPE / "create", U1)
    write(sending.root / MTTY / U1 / "uevent", "add")
    write(sending.root / MTTY / U1 / "remove", "1")
    heard = listening.heard()
    got = [(header, _no_numbers(env)) for header, env in messages(heard)]
    create = kernels("create U1 on t1")
    assert got[: len(create)] == create
    assert got[len(create)][0] == f"add@/{MTTY}/{U1}" and "SYNTH_UUID=0" in got[len(create)][1]
    assert [header.partition("@")[0] for header, _ in got[len(create) + 1 :]] == [
        "remove",
        "remove",
        "unbind",
        "remove",
    ]
    assert ours(outside.heard()) == []


def test_in_its_own_private_namespace(mount: Mount, private: tuple[str, ...], place: Path) -> None:
    """`auto`: the whole server lives there, so that only those in there see the mount."""
    script = f"""
import os, subprocess, sys
sys.path.insert(0, {os.getcwd()!r})
from pathlib import Path
from tests.mount.server import start, write
from tests.mount.test_uevents_netlink import HOST, SYNTHETIC, TYPE, MTTY, U1, Listening, messages
root = Path({str(place)!r}) / "root"
root.mkdir()
server = start(HOST, root, (), Path({str(place)!r}) / "log")
listening = Listening(root)
write(root / TYPE / "create", U1)
write(root / MTTY / U1 / "uevent", "change " + SYNTHETIC + " A=1")
write(root / MTTY / U1 / "remove", "1")
for header, env in messages(listening.heard()):
    print(header, *env)
server.end()
"""
    outside = Listening(place / "root")
    done = subprocess.run((*private, sys.executable, "-c", script), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    actions = [line.partition("@")[0] for line in lines]
    assert actions == ["add", "add", "add", "bind", "change", "remove", "remove", "unbind", "remove"]
    assert f"SYNTH_UUID={SYNTHETIC} SYNTH_ARG_A=1 DRIVER=mtty" in lines[4]
    assert ours(outside.heard()) == []


def test_who_looks_at_once_sees_the_new_state(sending: Server, private: tuple[str, ...]) -> None:
    """A listener that looks as soon as it hears: what `bind` names is there, what the last `remove` names is gone,
    while somebody else has the kernel keep the names."""
    root = sending.root
    looking = subprocess.Popen((sys.executable, "-c", LOOKER, root / MTTY / U1), stdout=subprocess.PIPE)
    assert looking.stdout is not None
    looking.stdout.readline()
    listening = Listening(root, network(private))
    try:
        for _ in range(ROUNDS):
            write(root / TYPE / "create", U1)
            created = [listening.next() for _ in range(4)]
            write(root / MTTY / U1 / "remove", "1")
            removed = [listening.next() for _ in range(4)]
            assert [found for found, _ in created] == [True] * 4
            assert [found for found, _ in removed] == [False, False, False, False]
    finally:
        looking.kill()
        looking.communicate()
        listening.heard()


def test_not_into_the_first_namespace(mount: Mount) -> None:
    server = mount(HOST)
    listening = Listening(server.root)
    write(server.root / TYPE / "create", U1)
    assert ours(listening.heard()) == []
    assert "no uevents over netlink: this " in server.log


def test_the_first_one_is_refused_when_named(place: Path) -> None:
    done = mdevfs("mount", "--uevents", "/proc/self/ns/net", HOST, place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mdevfs: --uevents /proc/self/ns/net: this ")
    assert mounts(place) == []


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("/no/such", "No such file or directory"),
        ("/proc/self/ns/mnt", "is a namespace, but not of networks"),
        ("/etc/passwd", "is no namespace"),
    ],
)
def test_what_is_no_network_namespace(place: Path, named: str, reason: str) -> None:
    done = mdevfs("mount", "--uevents", named, HOST, place)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr and reason in done.stderr
