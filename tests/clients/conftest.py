"""Machines for the clients' tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.machine import Machine
from tests.mount.conftest import why_not

BeginMachine = Callable[..., Machine]


@pytest.fixture(scope="module")
def begin_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BeginMachine]:
    """Starts machines: `begin_machine(host, *options)`; they end with the module's tests."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    begun: list[Machine] = []
    numbers = itertools.count()

    def begin(host: str | Path, *options: str) -> Machine:
        machine = Machine.begin(host, tmp_path_factory.mktemp(f"machine{next(numbers)}"), *options)
        begun.append(machine)
        return machine

    yield begin
    for machine in begun:
        machine.close()
