"""`mdevfs state emit`: a stream from a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mdevfs.cli.drivers import find
from mdevfs.cli.output import whole_file
from mdevfs.errors import InputError

if TYPE_CHECKING:
    from mdevfs.host.single import Wanted
    from mdevfs.state.stream import Section

EXAMPLE = """\b
Examples:
  mdevfs state emit --driver e1000 --machine pc-q35-2.4 --seed 1 -o e1000.mig
  mdevfs state emit --driver ./my_nic.py --version 2 --param rx-filter-size=16 --seed 1 -o - | mdevfs state show -"""


def emit(
    driver: Annotated[str, typer.Option(metavar="DRIVER", help="A vendor driver by its name, or a driver file.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="- for standard output.")],
    type_: Annotated[str | None, typer.Option("--type", metavar="TYPE-ID", help="Without it the first one.")] = None,
    version: Annotated[str | None, typer.Option(metavar="V", help="A version of the device model.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A migration parameter; again for each one.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting of the driver; again for each one.")
    ] = None,
    machine: Annotated[
        str | None, typer.Option(metavar="TYPE", help="The machine type, which the stream then names.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help='Of the device in its guest; "" for none.')
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Without it the device is as after reset.")] = None,
) -> None:
    """Write the stream of a device that has been driven into a state, with no guest and no mount.

    The same words and the same seed give the same device. Bare state, as of a kernel driver, is the body of its
    section, and the stream says so.
    """
    import trio

    from mdevfs.host.single import Wanted
    from mdevfs.state import stream

    arguments = [*([f"version={version}"] if version is not None else []), *(param or [])]
    wanted = Wanted(find(driver).driver, type_, machine, setting or [], arguments)
    section = trio.run(_section, wanted, address, seed)
    with whole_file(output) as file:
        for chunk in stream.write(machine or "", [section]):
            file.write(chunk)


async def _section(wanted: Wanted, address: str | None, seed: int | None) -> Section:
    """The device's section, with the string that the device says of itself."""
    import attrs

    from mdevfs.host.single import device

    mdev = await device(wanted)
    hooks = mdev.parent.driver
    if not hooks.migrates:
        raise InputError(f"driver {hooks.name} does not migrate: its devices have no state to save")
    string = hooks.migration_string(mdev)
    if seed is not None:
        hooks.exercise(mdev, seed)
    section = mdev.device_state.save()
    section.described["migration_version"] = string if isinstance(string, str) else await string
    if address is None:
        return section
    name = mdev.parent.description.name
    return attrs.evolve(section, name=f"{address}/{name}" if address else name)
