"""mtty: the header of the kernel's migration data as a device model."""

from __future__ import annotations

import json

import pytest

from tests.unit.handshakes import End, answer, end, reasons

HEADER = {"magic": "0x7e9d09898c3e2c4e", "major": "1", "minor": "0", "flags": "0"}
TABLE = [("1", "1", []), ("2", "2", []), ("1", "2", ["value-differs"]), ("2", "1", ["value-differs"])]


async def mtty(ports: str) -> End:
    return await end('[[device]]\ndriver = "mtty"\n', f"mtty-{ports}")


@pytest.mark.parametrize(("source", "target", "codes"), TABLE)
async def test_the_handshake(source: str, target: str, codes: list[str]) -> None:
    one = await mtty(source)
    assert one.string == f"kernel.org/mtty,ports={source}"
    assert await answer(await mtty(target), one.string) == codes


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (HEADER, []),
        ({"major": "2"}, [("value-not-allowed", "major")]),
        ({"major": "one"}, [("value-malformed", "major")]),
        ({"minor": "1"}, [("value-not-allowed", "minor")]),
        ({"flags": "1"}, [("value-not-allowed", "flags")]),
        ({"magic": "0x7e9d09898c3e2c4f"}, [("value-not-allowed", "magic")]),
        ({"magic": "1", "major": "2"}, [("value-not-allowed", "magic"), ("value-not-allowed", "major")]),
        ({"ports": "2", "flags": "8"}, [("value-not-allowed", "flags"), ("value-differs", "ports")]),
        ({"ports": "3"}, [("value-not-allowed", "ports")]),
        ({"patch": "1"}, [("parameter-unknown", "patch")]),
    ],
)
async def test_a_foreign_header_is_refused_part_by_part(
    header: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    items = {"ports": "1"} | header
    string = ",".join(["kernel.org/mtty", *sorted(f"{name}={value}" for name, value in items.items())])
    assert await reasons(await mtty("1"), string) == expected


async def test_a_manager_reads_the_header_and_prepares_a_target_with_it() -> None:
    one = await mtty("1")
    info = json.loads(await one.client.read(f"{one.path}/mdev_type/migration_info.json"))
    params = info["models"]["kernel.org/mtty"]["params"]
    assert {name: params[name]["allowed_values"] for name in HEADER} == {name: [text] for name, text in HEADER.items()}
    for name, about in params.items():  # every off value, then the source's list (VFIO Migration, RFC v3)
        if "off_value" in about:
            await one.client.write(f"{one.path}/migration/{name}", about["off_value"])
    await one.client.write(f"{one.path}/migration/ports", "1")
    assert await one.client.read(f"{one.path}/migration_version") == "kernel.org/mtty,ports=1\n"
    for name, text in HEADER.items():
        assert await one.client.read(f"{one.path}/migration/{name}") == text + "\n"
