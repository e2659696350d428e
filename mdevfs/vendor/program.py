"""A driver file as a device program (VFIO Migration, RFC v3): `--print-migration-info-json`, `--m-<param>=<value>`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from mdevfs.errors import EXIT_NO, EXIT_YES, Refusal
from mdevfs.mdev.models import info
from mdevfs.migration import arguments
from mdevfs.vendor.api import VendorDriver
from mdevfs.vendor.guard import GuardedDriver

USAGE = "usage: {program} [--print-migration-info-json] [--m-<param>=<value> | --m-<param> <value>] ..."


def device_program(driver: type[VendorDriver], words: Sequence[str] | None = None) -> NoReturn:
    """Runs a driver as a program: prints its migration information, or the string of the device that the parameters
    ask for. A device that cannot be made is a message on standard error and exit status 1."""
    given = list(sys.argv[1:] if words is None else words)
    if given in (["--help"], []):
        print(USAGE.format(program=f"python -m vendor_drivers.{driver.name}"))
        sys.exit(EXIT_YES)
    if given == ["--print-migration-info-json"]:
        hooks = GuardedDriver(driver())
        print(json.dumps(info(hooks, hooks.model, hooks.known_machines), indent=1))
        sys.exit(EXIT_YES)
    try:
        pairs = ",".join(_pairs(given))
        values = arguments.parse(pairs, driver.model)
    except (Refusal, ValueError) as error:
        print(f"{driver.name}: {error}", file=sys.stderr)
        sys.exit(EXIT_NO)
    assert driver.model is not None
    print(driver.model.write(driver.model.initial(values)))
    sys.exit(EXIT_YES)


def _pairs(words: Sequence[str]) -> Iterator[str]:
    """`name=value` for each `--m-name=value` or `--m-name value`. Raises ValueError."""
    rest = iter(words)
    for option in rest:
        if not option.startswith("--m-"):
            raise ValueError(f"unknown option {option}; parameters are given as --m-<param>=<value>")
        name, equals, value = option.removeprefix("--m-").partition("=")
        if not equals and (value := next(rest, "")) == "":
            raise ValueError(f"--m-{name} has no value")
        yield f"{name}={value}"
