"""mdevfs doctor, on machines made of a few files in a temporary directory, and on this one."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from mdevfs.cli import doctor
from mdevfs.sandbox import lacks

SETTINGS = {
    "user/max_user_namespaces": "96365",
    "kernel/unprivileged_userns_clone": "1",
    "kernel/apparmor_restrict_unprivileged_userns": "0",
}
USER, ROOT = 1000, 0


def put(root: Path, name: str, text: str = "", mode: int = 0o644) -> Path:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a machine that lacks nothing."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    put(tmp_path, "proc/sys/kernel/ostype", "Linux\n")
    put(tmp_path, "proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
    put(tmp_path, "proc/self/status", "Name:\tcat\nCapEff:\t000001ffffffffff\n")
    put(tmp_path, "dev/fuse")
    put(tmp_path, "etc/fuse.conf", "# user_allow_other - as below\nuser_allow_other\n")
    put(tmp_path, "etc/os-release", 'ID=ubuntu\nID_LIKE="debian"\n')
    put(tmp_path, "usr/bin/fusermount3", mode=0o4755)
    for program in ("gcc", "pkg-config"):
        put(tmp_path, f"usr/bin/{program}", mode=0o755)
    put(tmp_path, "usr/lib/systemd/systemd-udevd", mode=0o755)
    put(tmp_path, "usr/lib/x86_64-linux-gnu/pkgconfig/fuse3.pc")
    put(tmp_path, sysconfig.get_paths()["include"] + "/Python.h")
    for name, value in SETTINGS.items():
        put(tmp_path, f"proc/sys/{name}", value + "\n")
    return tmp_path


def lacking(root: Path, uid: int = USER) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.checks(root, uid) if not check.ok}


@pytest.mark.parametrize("uid", [ROOT, USER])
def test_a_whole_machine_lacks_nothing(machine: Path, uid: int) -> None:
    found = doctor.checks(machine, uid)
    assert [check for check in found if not check.ok or check.mend] == []
    assert len({check.name for check in found}) == len(found) >= 11


@pytest.mark.parametrize(
    ("path", "name", "mend"),
    [
        ("proc/sys/kernel/ostype", "Linux", "Linux VM"),
        ("dev/fuse", "/dev/fuse", "--device /dev/fuse"),
        ("usr/bin/fusermount3", "fusermount3", "apt install fuse3"),
        ("etc/fuse.conf", "user_allow_other", "echo user_allow_other >> /etc/fuse.conf"),
        ("usr/bin/gcc", "gcc", "apt install gcc"),
        ("usr/bin/pkg-config", "pkg-config", "apt install pkg-config"),
        ("usr/lib/x86_64-linux-gnu/pkgconfig/fuse3.pc", "fuse headers", "apt install libfuse3-dev"),
        (sysconfig.get_paths()["include"] + "/Python.h", "python headers", "apt install python3-dev"),
    ],
)
def test_one_missing_file_is_one_check_with_its_mend(machine: Path, path: str, name: str, mend: str) -> None:
    (machine / path.lstrip("/")).unlink()
    found = lacking(machine)
    assert list(found) == [name]
    assert mend in found[name].mend


@pytest.mark.parametrize(
    ("release", "mend"),
    [
        ("ID=fedora\n", "dnf install fuse3-devel"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install fuse3-devel"),
        ("ID=arch\n", "pacman -S fuse3"),
        ("ID=plan9\n", "apt install libfuse3-dev, or dnf install fuse3-devel, or pacman -S fuse3"),
    ],
)
def test_the_mend_speaks_this_distribution(machine: Path, release: str, mend: str) -> None:
    (machine / "usr/lib/x86_64-linux-gnu/pkgconfig/fuse3.pc").unlink()
    put(machine, "etc/os-release", release)
    assert lacking(machine)["fuse headers"].mend == mend


def test_advice_is_not_needed_and_the_rest_is(machine: Path) -> None:
    shutil.rmtree(machine)
    found = lacking(machine)
    needed = {name for name, check in found.items() if check.needed}
    assert needed == {"Linux", "/dev/fuse", "fusermount3"}
    assert all(check.mend for check in found.values())


def test_a_machine_closed_to_the_user_is_told_without_a_traceback(machine: Path) -> None:
    machine.chmod(0)
    asker = os.geteuid()
    if asker == ROOT:
        os.seteuid(65534)
    try:
        found = lacking(machine)
    finally:
        os.seteuid(asker)
        machine.chmod(0o755)
    assert found["/dev/fuse"].detail == "cannot be opened: Permission denied"
    assert {"fusermount3", "gcc", "python headers"} <= set(found)


def test_a_commented_user_allow_other_does_not_count(machine: Path) -> None:
    put(machine, "etc/fuse.conf", "#user_allow_other\n")
    assert list(lacking(machine)) == ["user_allow_other"]
    assert lacking(machine, ROOT) == {}


def test_a_user_needs_fusermount3_setuid_and_root_does_not(machine: Path) -> None:
    put(machine, "usr/bin/fusermount3", mode=0o755)
    assert lacking(machine)["fusermount3"].mend == "chmod u+s /usr/bin/fusermount3"
    assert lacking(machine, ROOT) == {}
    (machine / "usr/bin/fusermount3").unlink()
    assert not lacking(machine, ROOT)["fusermount3"].needed


def test_a_device_that_cannot_be_opened_says_why(machine: Path) -> None:
    (machine / "dev/fuse").unlink()
    (machine / "dev/fuse").mkdir()
    assert lacking(machine)["/dev/fuse"].detail == "cannot be opened: Is a directory"


def test_root_without_the_capability_cannot_mount(machine: Path) -> None:
    put(machine, "proc/self/status", "CapEff:\t00000000a80425fb\n")  # Docker's default set
    found = lacking(machine, ROOT)
    assert "--cap-add SYS_ADMIN" in found["right to mount"].mend
    assert found["right to mount"].needed
    assert lacking(machine, USER) == {}


@pytest.mark.parametrize(
    ("name", "value", "mend", "uids"),
    [
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000", {USER, ROOT}),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1", {USER}),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            {USER},
        ),
    ],
)
def test_the_setting_that_forbids_namespaces_is_named(
    machine: Path, name: str, value: str, mend: str, uids: set[int]
) -> None:
    put(machine, f"proc/sys/{name}", value + "\n")
    for uid in (USER, ROOT):
        found = lacking(machine, uid)
        assert list(found) == (["mdevfs run"] if uid in uids else [])
        if found:
            assert found["mdevfs run"].detail == f"forbidden by {name.replace('/', '.')} = {value}"
            assert mend in found["mdevfs run"].mend
            assert not found["mdevfs run"].needed


@pytest.mark.parametrize(
    ("uid", "status", "words"),
    [
        (ROOT, "CapEff:\t00000000a80425fb\nSeccomp:\t2\n", "root has no CAP_SYS_ADMIN here: start the container"),
        (ROOT, "CapEff:\t000001ffffffffff\nSeccomp:\t2\n", "a seccomp filter is on here: start the container"),
        (USER, "CapEff:\t0000000000000000\nSeccomp:\t2\n", "a seccomp filter is on here: start the container"),
        (USER, "CapEff:\t0000000000000000\nSeccomp:\t0\n", "in a container, start the container"),
    ],
)
def test_where_no_setting_forbids_it_a_container_does(machine: Path, uid: int, status: str, words: str) -> None:
    put(machine, "proc/self/status", f"Name:\tcat\n{status}")
    assert lacks.mend(machine, uid).startswith(words)


def test_old_python_and_missing_pyfuse3(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = doctor.check_python(doctor.Machine(machine, USER, (3, 10)))
    assert (old.ok, old.detail) == (False, "3.10 is older than 3.11")
    monkeypatch.setitem(sys.modules, "pyfuse3", None)  # the import system's own way to say: not importable
    found = lacking(machine)["pyfuse3"]
    assert found.needed
    assert "pip install 'pyfuse3>=3.5'" in found.mend


def test_this_machine_in_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor.doctor(json=True)
    data = json.loads(capsys.readouterr().out)
    assert code == (0 if data["ok"] else 3)
    assert data["ok"] == all(check["ok"] for check in data["checks"] if check["needed"])
    assert doctor.doctor(json=False) == code
    text = capsys.readouterr().out
    assert all(check["name"] in text and check["detail"] in text for check in data["checks"])
    device = next(check for check in data["checks"] if check["name"] == "/dev/fuse")
    assert device["ok"] == os.access("/dev/fuse", os.R_OK | os.W_OK)
