"""How drivers are found: entry points, files, what becomes of broken ones, and who may have written them."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from mdevfs.errors import InputError
from mdevfs.vendor import DeviceModel, Int, MdevType, VendorDriver
from mdevfs.vendor.loader import all_installed, installed, load_file, load_installed, mistakes, pages

NIC = """
from mdevfs.vendor import MdevType, VendorDriver

class Nic(VendorDriver):
    api = 1
    name = "{name}"
    types = [MdevType("nic")]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is good enough for root's drivers."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages: modules in it can be imported, and its dist-info is found."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    importlib.invalidate_caches()


def install(site: Path, points: dict[str, str], **modules: str) -> None:
    """What pip leaves behind of a package with these entry points and modules."""
    info = site / "acme_drivers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-drivers\nVersion: 1.0\n")
    lines = [f"{name} = {value}\n" for name, value in points.items()]
    (info / "entry_points.txt").write_text("[mdevfs.vendor_drivers]\n" + "".join(lines))
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)
    importlib.invalidate_caches()


def driver_file(folder: Path, text: str, name: str = "driver.py") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o644)
    return path


def told(records: list[logging.LogRecord]) -> str:
    return "\n".join(record.getMessage() for record in records)


# -- entry points


def test_an_installed_driver(site: Path) -> None:
    install(site, {"acme": "acme_nic:Nic"}, acme_nic=NIC.format(name="acme"))
    assert "acme" in installed()
    assert "acme_nic" not in sys.modules
    found = load_installed("acme")
    assert found is not None
    assert (found.driver.name, found.origin) == ("acme", "acme_nic:Nic (acme-drivers)")


def test_an_unknown_driver() -> None:
    assert load_installed("nobody-made-this") is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("import no_such_module", ["ModuleNotFoundError", "no_such_module"]),
        ("1 / 0", ["ZeroDivisionError"]),
        ("def broken(:", ["SyntaxError"]),
        ("import sys; sys.exit('stop')", ["SystemExit", "stop"]),
        ("Other = 1", ["AttributeError", "Nic"]),
        ("Nic = 5", ["5 is not a VendorDriver"]),
        ("class Nic: pass", ["is not a VendorDriver"]),
        (NIC.format(name="acme").replace("api = 1", "api = 99"), ["api = 99 is not known; this mdevfs speaks api 1"]),
        (NIC.format(name="another"), ['"another"', '"acme"']),
    ],
)
def test_a_broken_one_is_a_warning_and_the_rest_load(
    site: Path, text: str, parts: list[str], expected_logs: list[logging.LogRecord]
) -> None:
    points = {"acme": "acme_nic:Nic", "good": "acme_good:Nic"}
    install(site, points, acme_nic=text, acme_good=NIC.format(name="good"))
    assert load_installed("acme") is None
    [record] = expected_logs
    assert record.levelno == logging.WARNING
    assert all(part in record.getMessage() for part in ("acme_nic:Nic (acme-drivers)", *parts)), record.getMessage()
    assert "good" in {found.driver.name for found in all_installed()}
    assert list(pages()) is not None


# -- files


def test_a_file(folder: Path) -> None:
    path = driver_file(folder, NIC.format(name="one") + NIC.format(name="two").replace("Nic", "Other"))
    found = load_file(path)
    assert {name: (one.driver.name, one.origin) for name, one in found.items()} == {
        "one": ("one", str(path)),
        "two": ("two", str(path)),
    }


def test_what_a_file_imports_is_not_its_own(folder: Path) -> None:
    path = driver_file(folder, "from vendor_drivers.mtty import Mtty\n" + NIC.format(name="one"))
    assert set(load_file(path)) == {"one"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1 / 0", ["is left out", "ZeroDivisionError"]),
        ("raise SystemExit(3)", ["is left out", "SystemExit"]),
        ("class Broken(", ["is left out", "SyntaxError"]),
        ("x = 1", ["defines no VendorDriver"]),
        ("raise ValueError('\\x1b[31m<b>')", ["is left out", "ValueError: \\x1b[31m<b>"]),
        (
            NIC.format(name="a b").replace("api = 1", "api = 2"),
            ["api = 2 is not known", "'a b' is not a driver's name"],
        ),
        (
            "from mdevfs.vendor import DeviceModel, Int\nDeviceModel('a.b/c', [Int('a b', 1), Int('x', 9, 8, [1])])",
            [
                "InputError: device model 'a.b/c': parameter name 'a b' is empty or holds",
                "; device model 'a.b/c': x: init",
            ],
        ),
    ],
)
def test_a_broken_file(folder: Path, text: str, parts: list[str], expected_logs: list[logging.LogRecord]) -> None:
    path = driver_file(folder, text)
    before = set(sys.modules)
    assert load_file(path) == {}
    assert all(part in told(expected_logs) for part in (str(path), *parts)), told(expected_logs)
    assert "\\x0a" not in told(expected_logs)
    assert "mdevfs.vendor" in text or "x = 1" in text or set(sys.modules) == before


def test_a_broken_driver_beside_a_good_one(folder: Path, expected_logs: list[logging.LogRecord]) -> None:
    broken = NIC.format(name="broken").replace("Nic", "Broken").replace("api = 1", "api = 0")
    assert set(load_file(driver_file(folder, broken + NIC.format(name="good")))) == {"good"}
    assert "Broken: api = 0" in told(expected_logs)


def test_no_python_file(folder: Path, expected_logs: list[logging.LogRecord]) -> None:
    assert load_file(driver_file(folder, "hello", "driver.txt")) == {}
    assert "driver.txt is not a Python file" in told(expected_logs)


def test_no_file(folder: Path) -> None:
    for path in (folder / "none.py", folder):
        with pytest.raises(InputError, match="does not exist"):
            load_file(path)


def test_a_changed_file_is_read_anew(folder: Path) -> None:
    path = driver_file(folder, NIC.format(name="aaa"))
    status = path.stat()
    assert set(load_file(path)) == {"aaa"}
    driver_file(folder, NIC.format(name="bbb"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert set(load_file(path)) == {"bbb"}
    assert not (folder / "__pycache__").exists()


# -- who may have written it


@pytest.fixture
def _as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: only root refuses what others could have written")


@pytest.mark.usefixtures("_as_root")
@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646, 0o777])
def test_root_refuses_a_file_that_others_can_write(folder: Path, mode: int) -> None:
    path = driver_file(folder, NIC.format(name="one"))
    path.chmod(mode)
    with pytest.raises(InputError, match=f"{path} could have been written.*mode {mode:04o}.*chmod go-w"):
        load_file(path)


@pytest.mark.usefixtures("_as_root")
def test_root_refuses_anothers_file(folder: Path) -> None:
    path = driver_file(folder, NIC.format(name="one"))
    os.chown(path, 65534, 65534)
    with pytest.raises(InputError, match="owner 65534"):
        load_file(path)


@pytest.mark.usefixtures("_as_root")
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("how", ["mode", "owner"])
def test_root_refuses_a_file_below_a_folder_of_others(folder: Path, depth: int, how: str) -> None:
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    path = driver_file(below, NIC.format(name="one"))
    loose = [below, below.parent][depth]
    loose.chmod(0o777) if how == "mode" else os.chown(loose, 65534, 65534)
    with pytest.raises(InputError, match=f"{loose} could have been written"):
        load_file(path)


@pytest.mark.usefixtures("_as_root")
def test_root_accepts_its_own_file_in_a_sticky_folder_and_no_foreign_bytecode(folder: Path) -> None:
    path = driver_file(folder, NIC.format(name="one"))
    folder.chmod(0o1777)
    status = path.stat()
    foreign = driver_file(folder, NIC.format(name="bad"), "foreign.py")
    os.utime(foreign, ns=(status.st_atime_ns, status.st_mtime_ns))
    py_compile.compile(str(foreign), cfile=importlib.util.cache_from_source(str(path)))
    assert set(load_file(path)) == {"one"}


@pytest.mark.usefixtures("_as_root")
def test_root_looks_at_what_a_link_leads_to(folder: Path) -> None:
    path = driver_file(folder, NIC.format(name="one"))
    link = folder / "link.py"
    link.symlink_to(path)
    assert set(load_file(link)) == {"one"}
    path.chmod(0o666)
    with pytest.raises(InputError, match="could have been written"):
        load_file(link)


# -- declarations


class Wrong(VendorDriver):
    api: ClassVar[int] = 7
    name = "no good"
    bus = "isa"
    types = [
        *(MdevType("a"), MdevType("a"), MdevType("b", params={"prots": 1}), MdevType("c", params={"ports": 9})),
        MdevType("d", arguments={"units": {"1": {"ports": 1}, "9": {"ports": 9}}}),
    ]
    model = DeviceModel("a.b/c", [Int("ports", init=1, allowed=range(3))])
    Settings = dict  # type: ignore[assignment]


def test_several_mistakes_at_once() -> None:
    assert mistakes(Wrong) == [
        "api = 7 is not known; this mdevfs speaks api 1",
        "name 'no good' is not a driver's name (letters, digits, _ and -)",
        "bus 'isa' is not one of virtual, pci, css, ap",
        "two types are called a",
        "type b names the unknown parameter prots, did you mean ports?",
        "type c gives ports the value 9 is not allowed (0 to 2)",
        "type d gives ports the value 9 is not allowed (0 to 2)",
        "Settings is not a pydantic model",
    ]


@pytest.mark.parametrize("types", [None, 5, [1], ["nic"], {"nic": 1}])
def test_types_that_are_none(types: object) -> None:
    driver = type("Odd", (VendorDriver,), {"api": 1, "name": "odd", "types": types})
    assert len(mistakes(driver)) == 1
    assert "MdevType" in mistakes(driver)[0]


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "ä", "a\n", None, 5])
def test_names_that_are_none(name: object) -> None:
    [mistake] = mistakes(type("Odd", (VendorDriver,), {"api": 1, "name": name}))
    assert "is not a driver's name" in mistake


def test_nothing_wrong() -> None:
    assert mistakes(type("Good", (VendorDriver,), {"api": 1, "name": "good"})) == []


def test_a_type_lists_all_its_mistakes() -> None:
    with pytest.raises(InputError) as caught:
        MdevType("a b", device_api="vfio-usb", weight=0)
    assert len(caught.value.mistakes) == 3
