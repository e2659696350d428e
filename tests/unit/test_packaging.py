"""What pip gets: the entry points, the wheel's content, the pinned requirements."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mdevfs import __version__

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DRIVERS: dict[str, str] = PROJECT["entry-points"]["mdevfs.vendor_drivers"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_the_entry_point_is_a_driver_of_that_name(name: str) -> None:
    driver = EntryPoint(name, DRIVERS[name], "mdevfs.vendor_drivers").load()
    assert driver.name == name


def test_every_shipped_driver_has_an_entry_point() -> None:
    listed = {target.split(":")[0] for target in DRIVERS.values()}
    public = {f"vendor_drivers.{path.stem}" for path in (ROOT / "vendor_drivers").glob("[!_]*.py")}
    assert public <= listed


def test_the_command_can_be_called() -> None:
    assert callable(EntryPoint("mdevfs", PROJECT["scripts"]["mdevfs"], "console_scripts").load())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built here, with the hatchling that is installed: no index is asked."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(target.glob("*.whl")))


def test_the_wheel_holds_the_packages_with_their_data_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = f"mdevfs-{__version__}.dist-info/"
    built = {name for name in wheel.namelist() if not name.startswith(info)}
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("mdevfs", "vendor_drivers")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert built == sources
    assert any(name.startswith("vendor_drivers/hosts/") and name.endswith(".toml") for name in built)


def test_the_wheel_says_what_the_project_says(wheel: zipfile.ZipFile) -> None:
    info = f"mdevfs-{__version__}.dist-info/"
    points = wheel.read(info + "entry_points.txt").decode()
    assert f"mdevfs = {PROJECT['scripts']['mdevfs']}\n" in points
    assert all(f"{name} = {target}\n" in points for name, target in DRIVERS.items())
    assert "Requires-Python: >=3.11\n" in wheel.read(info + "METADATA").decode()
    assert "Apache License" in wheel.read(info + "licenses/LICENSE").decode()


def test_constraints_are_names_and_versions_only() -> None:
    assert [line for line in CONSTRAINTS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    names = [canonicalize_name(line.split("==")[0]) for line in CONSTRAINTS]
    assert names == sorted(set(names))


def test_every_dependency_is_pinned_to_a_version_it_allows() -> None:
    pinned = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in CONSTRAINTS}
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), f"{name}=={pinned[name]} is not {requirement.specifier}"
