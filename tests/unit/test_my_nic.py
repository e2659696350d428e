"""my_nic, the tutorial: versions 1 to 3 of the lists, one parameter, every pair of configurations."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.unit.handshakes import answer, end

HOST = '[[device]]\ndriver = "my_nic"\n'
STRING = "vendor-a.com/my-nic"
DIFFERS = ["value-differs"]
TABLE = [
    # source, target: arguments to create; expected codes
    ("", "", []),
    ("version=1", "version=1", []),
    ("version=2", "version=2", []),
    ("version=3", "", []),
    ("version=2", "rx-filter-size=32", []),
    ("version=2,rx-filter-size=48", "rx-filter-size=48", []),
    ("version=1", "version=2", DIFFERS),
    ("version=2", "version=1", DIFFERS),
    ("version=2", "version=3", DIFFERS),
    ("", "version=1", DIFFERS),
]


@pytest.mark.parametrize(("source", "target", "codes"), TABLE)
async def test_the_handshake(source: str, target: str, codes: list[str]) -> None:
    saying = await end(HOST, "my_nic-nic", source)
    assert await answer(await end(HOST, "my_nic-nic", target), saying.string) == codes


@pytest.mark.parametrize(
    ("string", "codes"),
    [
        (f"{STRING},rx-filter-size=257", ["value-not-allowed"]),
        (f"{STRING},rx-filter-size=many", ["value-malformed"]),
        (f"{STRING},rx-filter-size=64,rss=on", ["parameter-unknown"]),
        (f"{STRING},rx-filter-size=300,rss=on", ["value-not-allowed", "parameter-unknown"]),
        ("vendor-b.com/my-nic,rx-filter-size=64", ["model-differs"]),
    ],
)
async def test_strings_from_elsewhere(string: str, codes: list[str]) -> None:
    assert await answer(await end(HOST, "my_nic-nic"), string) == codes


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vendor_drivers.my_nic", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_the_device_program() -> None:
    model = json.loads(program("--print-migration-info-json").stdout)["models"][STRING]
    assert model["params"]["rx-filter-size"]["allowed_values"] == ["0-256"]
    assert (model["versions"]["2"], model["latest"]) == ({"rx-filter-size": "32"}, "3")
    assert program("--m-version=2").stdout == f"{STRING},rx-filter-size=32\n"
    assert program("--m-rx-filter-size", "0").stdout == f"{STRING}\n"


def test_a_device_that_cannot_be_made() -> None:
    done = program("--m-rx-filter-size=300", "--m-rss", "on")
    assert (done.returncode, done.stdout) == (1, "")
    assert "value-not-allowed" in done.stderr
    assert "parameter-unknown" in done.stderr
    assert program("--rss=on").returncode == 1
