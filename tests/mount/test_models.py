"""Device models on a real mount, with a plain shell and with mdevctl."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.mount.server import LIMIT, Server, codes, mdevfs, new_uuid, read, run, verdict, write, write_errno

PARENT = "devices/virtual/my_nic/my_nic"
TYPE = f"{PARENT}/mdev_supported_types/my_nic-nic"
MODEL = "vendor-a.com/my-nic"

# RFC v3: write every off value, then the source's list, one by one; any error means no.
PREPARE = """
set -e
target=$1 source=$2
for name in $(ls "$target/migration"); do
    info="$target/mdev_type/migration_info.json"
    off=$(sed -n "/\\"$name\\": {/,/}/s/.*\\"off_value\\": \\"\\(.*\\)\\".*/\\1/p" "$info")
    [ -z "$off" ] || echo "$off" > "$target/migration/$name"
done
string=$(cat "$source/migration_version")
for item in $(echo "${string#*,}" | tr , ' '); do
    [ "$item" = "$string" ] || echo "${item#*=}" > "$target/migration/${item%%=*}"
done
cat "$source/migration_version" > "$target/migration_version"
"""


def make(server: Server, number: int, arguments: str = "") -> Path:
    write(server.root / TYPE / "create", new_uuid(number) + arguments)
    return server.root / PARENT / new_uuid(number)


def shell(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return run("sh", "-c", script, "sh", *arguments)


def test_arguments_from_a_shell(mount: Mount) -> None:
    root = mount("my_nic").root
    create = f'echo {new_uuid(1)},version=2,rx-filter-size=48 > "$1/create"'
    assert shell(create, root / TYPE).returncode == 0
    mdev = root / PARENT / new_uuid(1)
    assert read(mdev / "migration_version") == f"{MODEL},rx-filter-size=48\n"
    for arguments, code in ((",", "argument-malformed"), (",version=9", "version-unknown")):
        assert write_errno(root / TYPE / "create", new_uuid(2) + arguments) == errno.EINVAL
        assert codes(verdict(root / TYPE / "mdevfs/last_verdict")) == [code]
    assert not (root / PARENT / new_uuid(2)).exists()


@pytest.mark.parametrize("arguments", ["", ",version=1", ",rx-filter-size=7"])
def test_a_target_is_prepared_with_plain_writes(mount: Mount, arguments: str) -> None:
    source, target = make(mount("my_nic"), 1, arguments), make(mount("my_nic"), 2, ",rx-filter-size=99")
    done = shell(PREPARE, target, source)
    assert (done.returncode, done.stderr) == (0, "")
    assert read(target / "migration_version") == read(source / "migration_version")


def test_a_device_in_use_is_not_prepared(mount: Mount) -> None:
    server = mount("my_nic")
    source, target = make(server, 1), make(server, 2)
    assert shell('echo 1 > "$1/mdevfs/in_use"', target).returncode == 0
    done = shell(PREPARE, target, source)
    assert done.returncode != 0
    assert "busy" in done.stderr or "I/O error" in done.stderr  # dash has one text for all errors
    assert codes(verdict(target / "mdevfs/last_verdict")) == ["in-use"]
    assert "in-use: rx-filter-size: " in server.log
    assert shell('echo 0 > "$1/mdevfs/in_use"', target).returncode == 0
    assert shell(PREPARE, target, source).returncode == 0


def test_a_source_that_cannot_migrate(mount: Mount) -> None:
    gpu = mount('[[device]]\ndriver = "i915"\naddress = "0000:00:02.0"\nsettings = { generation = 11 }\n')
    kind = gpu.root / "devices/pci0000:00/0000:00:02.0/mdev_supported_types/i915-GVTg_V5_4"
    done = mdevfs("check", "--json", kind, kind)
    assert done.returncode == 1
    assert codes(json.loads(done.stdout)) == ["source-cannot-migrate"]


# -- mdevctl, in a mount namespace where the host's directories lie over /sys

IN_NAMESPACE = """
set -e
for name in bus class devices module; do
    [ ! -d "$1/$name" ] || mount --rbind "$1/$name" "/sys/$name"
done
mount -t tmpfs none /etc/mdevctl.d
mkdir -p /etc/mdevctl.d/scripts.d/callouts /etc/mdevctl.d/scripts.d/notifiers
mdevctl define --uuid "$2" --parent my_nic --type my_nic-nic
mdevctl modify --uuid "$2" --addattr migration/rx-filter-size --value "$3"
mdevctl start --uuid "$2"
"""


def with_mdevctl(root: Path, uuid: str, value: str) -> subprocess.CompletedProcess[str]:
    """Defines an mdev with the parameter's value, and starts it."""
    namespace = ("unshare", "--mount", "--propagation", "private")
    return run("timeout", str(LIMIT / 2), *namespace, "sh", "-c", IN_NAMESPACE, "sh", root, uuid, value)


def test_mdevctl_sets_parameters(mount: Mount) -> None:
    for tool, package in (("mdevctl", "mdevctl"), ("unshare", "util-linux")):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} of the package {package}")
    if not Path("/etc/mdevctl.d").is_dir():
        pytest.skip("needs /etc/mdevctl.d of the package mdevctl")
    server = mount("my_nic")
    if run("unshare", "--mount", "mount", "--rbind", server.root / "bus", "/sys/bus").returncode != 0:
        pytest.skip("needs the right to mount in a namespace of its own")
    done = with_mdevctl(server.root, new_uuid(1), "32")
    assert (done.returncode, done.stderr) == (0, "")
    assert read(server.root / PARENT / new_uuid(1) / "migration_version") == f"{MODEL},rx-filter-size=32\n"
    done = with_mdevctl(server.root, new_uuid(2), "512")
    assert done.returncode != 0
    assert "value-not-allowed: rx-filter-size: " in server.log
    assert not (server.root / PARENT / new_uuid(2)).exists()
