"""`mdevfs host list|check|schema|models`."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import typer

from mdevfs.cli.output import Json, print_json
from mdevfs.cli.table import print_table

app = typer.Typer(add_completion=False, help="List, check and describe host files.", epilog="Example: mdevfs host list")


@app.command("list", epilog="Example: mdevfs host list")
def list_(json: Json = False) -> None:
    """List the hosts that come with mdevfs.

    Each can be mounted by its name.
    """
    from mdevfs.host.read import shipped

    hosts = [_describe(name, path) for name, path in shipped().items()]
    if json:
        print_json({"schema": 1, "hosts": hosts})
    else:
        print_table((host["name"], ", ".join(host["drivers"]), host["description"]) for host in hosts)


def _describe(name: str, path: Path) -> dict[str, Any]:
    from mdevfs.host.read import read

    drivers = dict.fromkeys(device.driver for device in read(str(path)).file.device)
    return {"name": name, "description": first_sentence(path), "drivers": list(drivers), "path": str(path)}


def first_sentence(path: Path) -> str:
    """What the file says of itself in the comment that it begins with; "" when it begins with none."""
    with path.open(encoding="utf-8") as file:
        lines = list(takewhile(lambda line: line.startswith("#"), file))
    comment = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=\.)\s", comment, maxsplit=1)[0]


@app.command(epilog="Example: mdevfs host check ./host.toml")
def check(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A shipped host's name or the path of a host.toml.")],
) -> None:
    """Build a host without mounting it.

    Tells every mistake in its keys, drivers, settings, addresses, types and mdevs.

    Exit code: 0 when a mount would succeed as far as the file goes, 2 with every mistake on standard error.
    """
    import trio

    from mdevfs.host.host import load

    built = trio.run(load, host)
    mdevs = sum(parent.count for parent in built.mdev.parents.values())
    print(f"ok: {built.plan.described.origin}: {_count(len(built.plan.devices), 'device')}, {_count(mdevs, 'mdev')}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


@app.command(epilog="Example: mdevfs host models gvtg --json, and of a mounted one: mdevfs host models /tmp/sys")
def models(
    host: Annotated[
        str, typer.Argument(metavar="HOST|DIR", help="A shipped host's name, a host.toml, or where a host is mounted.")
    ],
    json: Json = False,
) -> None:
    """Show the device models of a whole host.

    One line per type; with --json each type's migration_info.json, by parent and type-id. A host need not be mounted.
    """
    from mdevfs.cli.host_models import models_of, rows

    found = models_of(host)
    if json:
        print_json({"host": host, "parents": found})
    elif table := list(rows(found)):
        print_table(table)
    else:
        print("no type of this host shows a device model")


@app.command(epilog="Example: mdevfs host schema > host.schema.json, and in host.toml: #:schema ./host.schema.json")
def schema() -> None:
    """Print the JSON schema of host.toml.

    For editors; it knows the settings of every installed driver.
    """
    print_json(file_schema())


def file_schema() -> dict[str, Any]:
    """The schema of a whole host.toml. A device's settings follow from its driver's name."""
    from mdevfs.cli.driver import settings_schema
    from mdevfs.host.schema import HostFile
    from mdevfs.vendor.loader import all_installed

    document = HostFile.model_json_schema()
    definitions = document["$defs"]
    chosen = []
    for found in all_installed():
        key = f"settings-{found.driver.name}"
        definitions[key] = settings_schema(found.driver, f"#/$defs/{key}/$defs/{{model}}")
        test = {"properties": {"driver": {"const": found.driver.name}}, "required": ["driver"]}
        chosen.append({"if": test, "then": {"properties": {"settings": {"$ref": f"#/$defs/{key}"}}}})
    definitions["DeviceSection"]["allOf"] = chosen
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document, "title": "host.toml of mdevfs"}
