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
from tests.mount.test_readme import titled

PARENT = "devices/virtual/my_nic/my_nic"
TYPE = f"{PARENT}/mdev_supported_types/my_nic-nic"
MODEL = "vendor-a.com/my-nic"

# RFC v3's recipe: every off value, then the source's list, then the handshake.
PREPARE = titled()["prepare.sh"] + 'cat "$1/migration_version" >"$2/migration_version"\n'


def make(server: Server, number: int, arguments: str = "") -> Path:
    write(server.root / TYPE / "create", new_uuid(number) + arguments)
    return server.root / PARENT / new_uuid(number)


def shell(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return run("bash", "-c", script, "bash", *arguments)


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
    done = shell(PREPARE, source, target)
    assert (done.returncode, done.stderr) == (0, "")
    assert read(target / "migration_version") == read(source / "migration_version")


def test_a_device_in_use_is_not_prepared(mount: Mount) -> None:
    server = mount("my_nic")
    source, target = make(server, 1), make(server, 2)
    assert shell('echo 1 > "$1/mdevfs/in_use"', target).returncode == 0
    done = shell(PREPARE, source, target)
    assert done.returncode != 0
    assert "Device or resource busy" in done.stderr
    assert codes(verdict(target / "mdevfs/last_verdict")) == ["in-use"]
    assert "in-use: rx-filter-size: " in server.log
    assert shell('echo 0 > "$1/mdevfs/in_use"', target).returncode == 0
    assert shell(PREPARE, source, target).returncode == 0


# source and target: a shipped host or a host.toml, a type, arguments; and whether the recipe makes the one of the other
I915 = '[[device]]\ndriver = "i915"\naddress = "0000:00:02.0"\nsettings = {{ {} }}\n'
LARGE = I915.format("aperture_mb = 1024")
E1000E_72 = '[host]\nmachine = "pc-q35-7.2"\n[[device]]\ndriver = "e1000e"\nsettings = { release = "7.2" }\n'
RECIPES = [
    (("gvtg", "i915-GVTg_V5_4", ""), ("gvtg", "i915-GVTg_V5_4", ""), True),
    (("gvtg", "i915-GVTg_V5_4", ""), ("gvtg-newer", "i915-GVTg_V5_4", ""), False),
    (("gvtg", "i915-GVTg_V5_4", ""), ("gvtg-other-sku", "i915-GVTg_V5_4", ""), False),
    (("gvtg", "i915-GVTg_V5_4", ""), ("gvtg", "i915-GVTg_V5_8", ""), False),
    (("gvtg-aggregate", "i915-GVTg_V5_2", ""), ("gvtg-aggregate", "i915-GVTg_V5_8", ",aggregator=3"), True),
    (("gvtg-aggregate", "i915-GVTg_V5_8", ",aggregator=4"), ("gvtg-aggregate", "i915-GVTg_V5_4", ""), True),
    (("gvtg-aggregate", "i915-GVTg_V5_2", ""), ("gvtg", "i915-GVTg_V5_2", ""), True),
    ((LARGE, "i915-GVTg_V5_4", ",aggregator=2"), ("gvtg-aggregate", "i915-GVTg_V5_2", ""), False),
    (("qat", "qat-vf", ""), ("qat", "qat-vf", ""), True),
    (("mtty", "mtty-2", ""), ("mtty", "mtty-2", ""), True),
    (("mtty", "mtty-2", ""), ("mtty", "mtty-1", ""), False),
    (("nvidia-t4", "nvidia-222", ""), ("nvidia-t4", "nvidia-222", ""), True),
    (("nvidia-t4", "nvidia-222", ""), ("nvidia-a16", "nvidia-709", ""), False),
    (("nvidia-a16", "nvidia-709", ""), ("nvidia-a16", "nvidia-709", ""), True),
    ((E1000E_72, "e1000e-nic", ""), ("e1000e", "e1000e-nic", ""), True),
    (("e1000e", "e1000e-nic", ""), ("e1000e-broken", "e1000e-nic", ""), False),
    (("my_nic", "my_nic-nic", ""), ("mtty", "mtty-1", ""), False),
]


def test_the_recipe_for_every_driver(mount: Mount) -> None:
    """What it prepares takes the source; where it fails the target refuses the source."""
    roots = {host: mount(host).root for host in {host for *ends, _ in RECIPES for host, _, _ in ends}}
    for *ends, yes in RECIPES:
        mdevs = []
        for side, (host, kind, arguments) in enumerate(ends):
            parents = sorted((roots[host] / "class/mdev_bus").iterdir())
            parent = parents[side % len(parents)]
            write(parent / "mdev_supported_types" / kind / "create", new_uuid(side) + arguments)
            mdevs.append(parent / new_uuid(side))
        done = shell(PREPARE, *mdevs)
        assert (done.returncode == 0) == yes, (ends, done.stderr)
        string = read(mdevs[0] / "migration_version")
        assert write_errno(mdevs[1] / "migration_version", string) == (0 if yes else errno.EINVAL), ends
        for mdev in mdevs:
            write(mdev / "remove", "1")


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
