"""The control socket: who reaches it from where, and that nothing of it is left behind."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL

import pytest

from mdevfs.control.asker import ask
from mdevfs.control.listening import listen_at
from mdevfs.control.protocol import ADDRESS_XATTR, Address
from mdevfs.errors import MachineError
from tests.mount.conftest import MakeRoot, Mount, why_not
from tests.mount.server import LIMIT, MDEVFS, NOBODY, Server, mdevfs, run
from tests.mount.test_life import as_nobody

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

REFUSED = (
    "mdevfs: the host on {} refuses to answer this user: its control socket is for its owner and root, in the user "
    "namespace that it was mounted in and with no fewer capabilities\n"
)
ELSEWHERE = (
    "mdevfs: the host on {} does not answer at {}: {}; if it was mounted in another container or PID namespace, ask "
    "in there, as with nsenter(1)\n"
)
UNSHARE_NET = ("unshare", "--net")
# A request without mdevfs, whose Python an ordinary user's machine may be unable to read.
PERL = (
    'perl -MIO::Socket::UNIX -e \'$s = IO::Socket::UNIX->new(Peer => "/run/mdevfs/control") or die $!; '
    'print $s qq({"op": "$ARGV[0]", "address": "mtty"}\\n); print <$s>\''
)


def address(root: Path) -> Address:
    return Address.from_bytes(os.getxattr(root, ADDRESS_XATTR))


@contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def mount_as_nobody(mount: Mount, root: Path) -> Server:
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        pytest.skip("needs a /dev/fuse that ordinary users can open")
    for path in (root, root.parent):
        os.chown(path, NOBODY, NOBODY)
    return mount("mtty", root=root, prefix=as_nobody())


def test_no_file_of_it_is_ever_left(mount: Mount, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even in a directory with a name too long for a socket's, nor when the server is killed."""
    temporary = place / ("long" * 40)
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    server = mount("mtty")
    path = address(server.root).path
    assert os.readlink(path).startswith(f"{temporary}/mdevfs-")
    assert stat.filemode(os.stat(path).st_mode) == "srw-------"
    assert os.listdir(temporary) == []
    assert "devices" in ask(server.root, "status", {})
    server.signal(SIGKILL)
    server.wait()
    assert os.listdir(temporary) == []


def test_in_a_pid_namespace_with_the_proc_of_another(make_root: MakeRoot) -> None:
    """As `unshare --pid --fork` leaves it: this /proc counts otherwise than the server itself."""
    root = make_root()
    script = f"{MDEVFS} mount mtty {root} && {MDEVFS} control {root} status >/dev/null; echo $?; {MDEVFS} umount {root}"
    done = run("unshare", "--pid", "--fork", "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_in_every_network_namespace(mount: Mount) -> None:
    root = mount("mtty").root
    done = run(*UNSHARE_NET, MDEVFS, "control", root, "remove", "mtty")
    assert (done.returncode, done.stdout, done.stderr) == (0, "mtty is gone\n", "")


def test_its_owner_is_answered(mount: Mount, make_root: MakeRoot) -> None:
    """Of a mount of an ordinary user's."""
    root = mount_as_nobody(mount, make_root()).root
    for prefix, verb, told in (((), "remove", "mtty is gone\n"), (UNSHARE_NET, "add", "mtty is there\n")):
        done = run(*prefix, *as_nobody(), MDEVFS, "control", root, verb, "mtty")
        assert (done.returncode, done.stdout, done.stderr) == (0, told, "")


def test_another_user_is_refused(mount: Mount) -> None:
    root = mount("mtty").root
    with another_user(), pytest.raises(MachineError, match="refuses to answer this user"):
        ask(root, "reboot", {})
    done = run(*as_nobody(), MDEVFS, "control", root, "remove", "mtty")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", REFUSED.format(root))
    assert (root / "class/mdev_bus/mtty").exists()


def test_from_another_pid_namespace(mount: Mount) -> None:
    root = mount("mtty").root
    done = run("unshare", "--pid", "--fork", "--mount-proc", MDEVFS, "control", root, "remove", "mtty")
    told = ELSEWHERE.format(root, address(root).path, "No such file or directory")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", told)


def test_another_hosts_socket_by_the_same_path(mount: Mount) -> None:
    """As where two containers have a server of the same pid each: neither host is changed."""
    mine, other = mount("mtty"), mount("mtty")
    path = address(mine.root).path
    assert path.replace(str(mine.pid), str(other.pid)) == address(other.root).path
    script = 'mount --bind /proc/$1 /proc/$2 && exec "$0" control "$3" remove mtty'
    arguments = (str(other.pid), str(mine.pid), mine.root)
    done = run("unshare", "--mount", "sh", "-c", script, MDEVFS, *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == ELSEWHERE.format(mine.root, path, "another listens there")
    assert all((server.root / "class/mdev_bus/mtty").exists() for server in (mine, other))


def test_a_server_of_neither_the_owner_nor_root_is_not_trusted(place: Path) -> None:
    os.chown(place, NOBODY, NOBODY)
    with another_user():
        endpoint = listen_at(place / "run/control", place / "run/control")
    root = place / "sys"
    root.mkdir()
    try:
        os.setxattr(root, ADDRESS_XATTR, endpoint.address.to_bytes())
    except OSError as error:
        pytest.skip(f"needs extended attributes in {place}: {error}")
    with endpoint.socket, pytest.raises(MachineError, match="another listens there"):
        ask(root, "status", {}, LIMIT)


def test_from_inside_a_machine() -> None:
    """There the tree is at /sys, and its top directories are what is mounted."""
    steps = (
        "$0 control /sys remove mtty",
        "ls /sys/class/mdev_bus",
        "$0 control /sys reboot",
        "ls /sys/class/mdev_bus",
    )
    done = mdevfs("run", "kernel-samples", "--", "sh", "-c", " && ".join(steps), MDEVFS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == [
        "mtty is gone",
        "mbochs",
        "mdpy",
        "the machine has rebooted",
        "mbochs",
        "mdpy",
        "",
    ]


@pytest.mark.parametrize("options", [(), ("--hermetic",), ("--net",), ("--keep", "kept")])
@pytest.mark.parametrize("user", ["root", "ordinary"])
def test_it_is_a_file_of_the_machine(place: Path, user: str, options: tuple[str, ...]) -> None:
    if shutil.which("perl") is None:
        pytest.skip("needs perl")
    prefix: tuple[str, ...] = () if user == "root" else as_nobody()
    os.chown(place, *((0, 0) if user == "root" else (NOBODY, NOBODY)))
    steps = (
        "stat --format=%A /run/mdevfs/control",
        f"{PERL} remove",
        f"unshare --net {PERL} add",
    )
    script = f'cd "$1" && exec "$0" run {" ".join(options)} mtty -- sh -c "$2"'
    done = run(*prefix, "sh", "-c", script, MDEVFS, place, " && ".join(steps))
    told = ["srw-------", '{"did": "mtty is gone"}', '{"did": "mtty is there", "address": "mtty"}']
    assert (done.stdout.splitlines(), done.stderr) == (told, "")
    left = {path.name for path in place.rglob("*")}
    assert "control" not in left
    assert ("server.log" in left) == ("--keep" in options)


def test_the_server_itself_asks_who_asks() -> None:
    """Though the file may let others in."""
    script = (
        "chmod 666 /run/mdevfs/control; setpriv --reuid=1 --inh-caps=+dac_read_search --ambient-caps=+dac_read_search "
        "$0 control /sys remove mtty; ls /sys/class/mdev_bus"
    )
    done = mdevfs("run", "mtty", "--", "sh", "-c", script, MDEVFS)
    assert done.stdout == "mtty\n"
    assert done.stderr == "mdevfs: the host has ended, or refuses to answer this user\n"
