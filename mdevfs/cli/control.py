"""`mdevfs control DIR VERB ...`: change a mounted host while tools look at it."""

from __future__ import annotations

import math
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mdevfs.cli.output import Json, print_json

EXAMPLES = """\b
Examples:
  mdevfs control /tmp/sys remove 0000:00:02.0 && mdevfs control /tmp/sys add 0000:00:02.0
  mdevfs control /tmp/sys fault '*/available_instances' --text $'0\\n' --count 3
  mdevfs control /tmp/sys fault --on probe --errno EIO --probability 0.3 --seed 7
  mdevfs control /tmp/sys reboot --late 2.5

VERB --help says more. Exit codes: 0 done, 1 refused, 2 wrong use, 3 no host answers."""

app = typer.Typer(add_completion=False)


class On(StrEnum):
    """The accesses that a fault strikes."""

    READ = "read"
    WRITE = "write"
    PROBE = "probe"
    REMOVE = "remove"


Address = Annotated[str, typer.Argument(metavar="DEVICE", help="Its address, as in host.toml: 0000:00:02.0, mtty.")]
Parent = Annotated[str, typer.Argument(metavar="PARENT", help="As in class/mdev_bus.")]
TypeId = Annotated[str, typer.Argument(metavar="TYPE-ID", help="As in mdev_supported_types.")]
Uuid = Annotated[str, typer.Argument(metavar="UUID", help="Of an mdev.")]
Force = Annotated[bool, typer.Option("--force", help="Do not wait for mdevs in use: their users are gone.")]


@app.callback(epilog=EXAMPLES)
def control(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the host is mounted.")],
) -> None:
    """Change a mounted host: devices, types and faults come and go.

    When a verb returns, nobody sees the old state any more, and the uevents were sent in the kernel's order. A verb
    that has begun is carried out, even if you do not wait for it.
    """
    context.obj = directory


@app.command(epilog="Example: mdevfs control /tmp/sys status --json")
def status(context: typer.Context, json: Json = False) -> None:
    """Show the devices, present or not, the parents, the mdevs in use and the faults."""
    answer = _ask(context, "status")
    if json:
        print_json(answer)
        return
    from mdevfs.cli.table import print_table

    print_table((one["address"], one["driver"], _where(one)) for one in answer["devices"])
    for parent in answer["parents"]:
        print(f"parent {parent['name']}: {parent['mdevs']} mdevs; types {', '.join(parent['types']) or 'none'}")
    for uuid in answer["in_use"]:
        print(f"in use: {uuid}")
    for fault in answer["faults"]:
        print(_fault(fault))


def _where(device: dict[str, Any]) -> str:
    if device["present"]:
        return "present"
    return "absent" if device["due"] is None else f"comes {device['due']:g} s after the boot"


@app.command(epilog="Example: mdevfs control /tmp/sys add --driver nvidia --address 0000:3b:00.0 --setting board=T4")
def add(
    context: typer.Context,
    address: Annotated[str | None, typer.Argument(metavar="[DEVICE]", help="One that host.toml describes.")] = None,
    driver: Annotated[str | None, typer.Option(metavar="NAME", help="A new device: its vendor driver.")] = None,
    at: Annotated[str | None, typer.Option("--address", metavar="ADDRESS", help="Where on its bus.")] = None,
    setting: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="As in host.toml.")] = None,
    json: Json = False,
) -> None:
    """Let a device appear: one that is absent or comes late, or a new one."""
    from mdevfs.errors import InputError

    if (address is None) == (driver is None):
        raise InputError("add takes the DEVICE that is absent, or --driver for a new one")
    if address is not None and (at or setting):
        raise InputError("--address and --setting describe a new device: give --driver as well")
    if address is not None:
        _tell(_ask(context, "add", address=address), json)
        return
    device = {"driver": driver, "settings": _settings(setting or [])} | ({"address": at} if at is not None else {})
    _tell(_ask(context, "add", device=device), json)


@app.command(epilog="Example: mdevfs control /tmp/sys remove 0000:00:02.0")
def remove(context: typer.Context, device: Address, force: Force = False, json: Json = False) -> None:
    """Take a device away, with its mdevs: unplugged, a virtual one with its module.

    As the kernel does, it waits until no mdev of it is in use.
    """
    _tell(_ask(context, "remove", address=device, force=force), json)


@app.command(epilog="Example: mdevfs control /tmp/sys unregister mtty")
def unregister(context: typer.Context, parent: Parent, force: Force = False, json: Json = False) -> None:
    """Take a parent's types and mdevs away; the device stays (MDEV_STATE=unregistered).

    As the kernel does, it waits until no mdev of it is in use.
    """
    _tell(_ask(context, "unregister", parent=parent, force=force), json)


@app.command(epilog="Example: mdevfs control /tmp/sys register mtty")
def register(context: typer.Context, parent: Parent, json: Json = False) -> None:
    """Make an unregistered device a parent again (MDEV_STATE=registered)."""
    _tell(_ask(context, "register", parent=parent), json)


@app.command("remove-type", epilog="Example: mdevfs control /tmp/sys remove-type mtty mtty-2")
def remove_type(
    context: typer.Context,
    parent: Parent,
    type_id: TypeId,
    mdevs: Annotated[bool, typer.Option("--mdevs", help="Remove its mdevs first; without, they forbid it.")] = False,
    json: Json = False,
) -> None:
    """Take one type of a parent away.

    No kernel does that to a registered parent, so there is no event of its own: `change` on the parent.
    """
    _tell(_ask(context, "remove-type", parent=parent, type=type_id, mdevs=mdevs), json)


@app.command("add-type", epilog="Example: mdevfs control /tmp/sys add-type mtty mtty-quad --like mtty-2 --name Quad")
def add_type(
    context: typer.Context,
    parent: Parent,
    type_id: TypeId,
    like: Annotated[str | None, typer.Option(metavar="TYPE-ID", help="A new type: which other it is like.")] = None,
    name: Annotated[str | None, typer.Option(help="Its name.")] = None,
    description: Annotated[str | None, typer.Option(help="Its description.")] = None,
    json: Json = False,
) -> None:
    """Let a parent offer a type that was removed, or a new one."""
    given = {"like": like, "name": name, "description": description}
    _tell(_ask(context, "add-type", parent=parent, type=type_id, **_given(given)), json)


@app.command(epilog="Example: mdevfs control /tmp/sys use $UUID")
def use(context: typer.Context, uuid: Uuid, json: Json = False) -> None:
    """Open an mdev as a guest would: who removes it waits."""
    _tell(_ask(context, "use", uuid=uuid), json)


@app.command(epilog="Example: mdevfs control /tmp/sys release $UUID")
def release(context: typer.Context, uuid: Uuid, json: Json = False) -> None:
    """Close an mdev that is in use."""
    _tell(_ask(context, "release", uuid=uuid), json)


@app.command(epilog="Example: mdevfs control /tmp/sys reboot --late 2.5")
def reboot(
    context: typer.Context,
    late: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="All devices come so late; inf: not by themselves.")
    ] = None,
    json: Json = False,
) -> None:
    """Take the machine's power away and give it back: no mdev is left, the devices come back.

    Each device comes when its `late` in host.toml says. Faults stay.
    """
    _tell(_ask(context, "reboot", **_given({"late": _seconds(late)})), json)


@app.command(epilog="Example: mdevfs control /tmp/sys fault '*/create' --on write --errno ENOMEM --count 2")
def fault(
    context: typer.Context,
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="Of an attribute, or of an mdev; * matches all, slashes too.")
    ] = None,
    on: Annotated[On | None, typer.Option(help="What is struck; without: reads and writes.")] = None,
    slow: Annotated[float | None, typer.Option(metavar="SECONDS", help="inf: until the fault is cleared.")] = None,
    errno: Annotated[str | None, typer.Option(metavar="NAME", help="Fail with it, such as EIO.")] = None,
    text: Annotated[str | None, typer.Option(help="What reads give instead.")] = None,
    count: Annotated[int | None, typer.Option(help="Strike so often; without: for ever.")] = None,
    skip: Annotated[int | None, typer.Option(help="Let so many pass first.")] = None,
    probability: Annotated[float | None, typer.Option(help="Strike with this probability.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed strikes the same accesses.")] = None,
    json: Json = False,
) -> None:
    """Make an attribute slow, failing or wrong, or a driver's probe or remove slow or failing.

    A read that goes on to the end of a text counts as one.
    """
    what = {"path": _own(context.obj, path), "on": on, "slow": _seconds(slow), "errno": errno, "text": text}
    what |= {"count": count, "skip": skip, "probability": probability, "seed": seed}
    answer = _ask(context, "fault", **_given(what))
    _tell(answer, json)
    if answer["matches"] is False and not json and on not in (On.PROBE, On.REMOVE):
        print("nothing has such a path yet")


@app.command(epilog="Example: mdevfs control /tmp/sys faults --json")
def faults(context: typer.Context, json: Json = False) -> None:
    """List the faults, with how many accesses each has seen and struck."""
    answer = _ask(context, "faults")
    if json:
        print_json(answer)
        return
    for one in answer["faults"]:
        print(_fault(one))


@app.command(epilog="Example: mdevfs control /tmp/sys clear 1 3")
def clear(
    context: typer.Context,
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Without: all.")] = None,
    json: Json = False,
) -> None:
    """Clear faults; who waits for one goes on."""
    _tell(_ask(context, "clear", **_given({"numbers": numbers or None})), json)


def _ask(context: typer.Context, op: str, **what: object) -> dict[str, Any]:
    from mdevfs.control.asker import ask

    return ask(context.obj, op, what)


def _tell(answer: dict[str, Any], json: bool) -> None:
    if json:
        print_json(answer)
    else:
        print(answer["did"])


def _given(what: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in what.items() if value is not None}


def _seconds(number: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "inf" if number == math.inf else number


def _own(directory: Path, path: str | None) -> str | None:
    """A path in the tree, where the shell has completed one of a file."""
    if path is None:
        return None
    root, whole = os.path.abspath(directory), os.path.abspath(path)
    return os.path.relpath(whole, root) if whole.startswith(f"{root}/") else path


def _settings(words: list[str]) -> dict[str, Any]:
    """KEY=VALUE, the value as in TOML where it is one, else as it stands. Raises InputError."""
    import tomllib

    from mdevfs.errors import InputError

    found: dict[str, Any] = {}
    if wrong := [word for word in words if "=" not in word]:
        raise InputError([f'--setting "{word}" is not of the form KEY=VALUE' for word in wrong])
    for word in words:
        key, _, value = word.partition("=")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


def _fault(one: dict[str, Any]) -> str:
    effect = [f"{one['slow']} s late"] if one["slow"] else []
    effect += [one["errno"]] if one["errno"] else []
    effect += [f"reads {one['text']!r}"] if one["text"] is not None else []
    limit = f" of {one['count']}" if one["count"] else ""
    on = " or ".join(one["on"])
    return f"fault {one['number']}: {on} of {one['path']}: {', '.join(effect)}; struck {one['struck']}{limit}"
