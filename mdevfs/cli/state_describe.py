"""`mdevfs state describe DRIVER`."""

from __future__ import annotations

from typing import Annotated

import typer

from mdevfs.cli.descriptions import all_of, dump_of
from mdevfs.cli.output import whole_file

EXAMPLE = """\b
Examples:
  mdevfs state describe e1000 -o e1000.json && vmstate-static-checker.py -s qemu.json -d e1000.json
  mdevfs state describe e1000 mtty --doc"""


def describe(
    drivers: Annotated[
        list[str],
        typer.Argument(metavar="DRIVER...", help="By name or driver file; DRIVER@VERSION for an older version."),
    ],
    setting: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting of the drivers; again for each one.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Without it standard output.")] = "-",
    doc: Annotated[bool, typer.Option("--doc", help="A document in Markdown instead: the format, for people.")] = False,
) -> None:
    """Describe the device state of vendor drivers: what is saved, field by field.

    Prints what qemu-system-x86_64 -dump-vmstate prints, for QEMU's vmstate-static-checker.py and mdevfs state check.
    Devices are named as their sections; where two would have one name, as the command line names them. An older
    version has no fields that came later. Of an array that is as long as the state says, num is 0.
    """
    import json

    from mdevfs.state.document import document

    found = all_of(drivers, setting or [])
    if doc:
        text = "\n".join(document(one.driver, one.description, one.version) for one in found)
    else:
        text = json.dumps(dump_of(found), indent=2) + "\n"
    with whole_file(output) as file:
        file.write(text.encode())
