"""The judges of device state themselves: QEMU's tools here behave as the recordings say."""

from __future__ import annotations

import pytest

from tests.qemu import judge, needs_qemu, needs_scripts


@needs_scripts
@pytest.mark.parametrize("name", ["accept_description.py", "accept_stream.py"])
def test_the_scripts_of_qemu_answer_as_recorded(name: str) -> None:
    *checks, last = judge(name, "--self-test")
    assert (len(checks) > 20, last) == (True, "PASS (0 failure(s))")


@needs_qemu
def test_qemu_loads_and_refuses_as_recorded() -> None:
    *checks, last = judge("accept_qemu_load.py", "--self-test")
    assert (len(checks) > 10, last) == (True, "PASS (0 failure(s))")
