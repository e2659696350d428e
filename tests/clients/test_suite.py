"""The judge of unmodified clients, tests/judges/client_suite.sh, in every mode; and on machines of `mdevfs run`, whose
recipe then takes the place of the suite's own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from attrs import frozen

from tests.clients.machine import absent
from tests.golden.recorder import RECORDINGS
from tests.mount.conftest import why_not
from tests.mount.server import MDEVFS
from tests.mount.test_life import as_nobody

SUITE = Path(__file__).parents[1] / "judges/client_suite.sh"
CLIENTS = ("mdevctl", "udevadm", "virsh", "libvirtd", "lspci", "systool", "driverctl", "lshw", "busybox")
AT_ONCE = 4  # a run waits most of its time
LIMIT = 240.0

# What a driver's mdevs do not have, what libudev cannot do without the suite's or our magic, what udev does not keep of
# a parent that is no PCI function, and kinds of parents that libvirt does not know.
NO_ATTRIBUTE = frozenset({"mdevctl.modify.addattr"})
NO_MAGIC = frozenset({"libudev.noenv"})
NO_RECORD = frozenset({"udevd.db"})
NOT_LIBVIRTS = frozenset({"libvirt.parent"})


@frozen
class Run:
    """A host and how the suite is started on it; which checks must skip."""

    host: str
    options: str = ""
    skips: frozenset[str] = frozenset()
    least: int = 100  # checks that there are
    ordinary_user: bool = False

    def __str__(self) -> str:
        return f"{self.host} {self.options}".strip() + " as nobody" * self.ordinary_user


def mounts() -> Iterator[Run]:
    """All modes on one host, each on another; every host that has a parent with room for three mdevs."""
    for mode in ("root", "userns", "unpriv"):
        for option in ("", " --over", " --magic"):
            yield Run("nvidia-t4", f"-m {mode}{option}", frozenset() if "magic" in option else NO_MAGIC)
    yield Run("nvidia-t4", "-m userns --over --magic")
    yield Run("gvtg", "-m root --over", NO_ATTRIBUTE | NO_MAGIC)
    yield Run("gvtg", "-m userns --magic", NO_ATTRIBUTE)
    yield Run("gvtg", "-m unpriv --over --magic", NO_ATTRIBUTE)
    one = "-m userns --magic"
    for host in ("gvtg-aggregate", "gvtg-newer", "gvtg-other-sku"):
        yield Run(host, one, NO_ATTRIBUTE)
    for host in ("e1000", "e1000e", "e1000e-broken"):
        yield Run(host, one)
    # lspci's group and its like are for PCI functions only.
    yield Run("vfio-ap", one, NO_RECORD | NO_ATTRIBUTE, least=90)
    yield Run("mtty", one, NO_RECORD | NO_ATTRIBUTE, least=90)
    for host in ("kernel-samples", "my_nic"):
        yield Run(host, one, NO_RECORD | NO_ATTRIBUTE | NOT_LIBVIRTS, least=80)


MOUNTS = list(mounts())
# What the suite said on a real kernel with the real modules: of mtty, and of all three samples.
REAL = {"mtty": "clients_mtty_6.1.txt", "kernel-samples": "clients_samples_6.1.txt"}
MACHINES = [
    Run("nvidia-t4"),
    Run("nvidia-t4", ordinary_user=True),
    Run("nvidia-t4", "--hermetic"),
    Run("nvidia-t4", "--statfs=env", NO_MAGIC),
    Run("gvtg", skips=NO_ATTRIBUTE),
]

Outcome = dict[str, str]  # of each check: PASS, SKIP or FAIL, and what else the suite says of it


def in_the_suites_recipe(run: Run, files: Path) -> Outcome:
    """The suite makes the namespaces and starts `mdevfs mount` in them."""
    mount = f"{MDEVFS} mount --foreground {run.host} @MNT@"
    command = ("bash", str(SUITE), *run.options.split(), "-o", str(files), "--exec", mount)
    return outcome(run, *command)


def in_our_recipe(run: Run, files: Path) -> Outcome:
    """The checks alone, as the command of `mdevfs run`: what the suite would mount is there, so its `mount` does
    nothing; and it starts a udevd of its own."""
    (files / "mount").write_text("#!/bin/sh\n")
    (files / "mount").chmod(0o755)
    variables = {"MODE": "run", "ROOT": "/sys", "EXEC": "", "OVER": "", "SHELLCMD": "", "ONLY": "."}
    variables |= {"W": str(files), "OUT": str(files), "PATH": f"{files}:{os.environ['PATH']}"}
    variables["MAGIC"] = "" if "env" in run.options else "1"
    machine = (str(MDEVFS), "run", "--udevd=none", *run.options.split(), run.host, "--")
    return outcome(run, *machine, "bash", str(SUITE), "--inner", **variables)


def outcome(run: Run, *command: str, **variables: str) -> Outcome:
    """Runs the suite to its end."""
    words = (*as_nobody(), *command) if run.ordinary_user else command
    environment = {**os.environ, **variables}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert re.search(r"^RESULT pass=\d+ fail=\d+ skip=\d+$", done.stdout, re.MULTILINE), done.stdout + done.stderr
    return checks(done.stdout)


def checks(text: str) -> Outcome:
    """What the suite said of each."""
    found = re.findall(r"^(PASS|SKIP|FAIL) (\S+) *(.*)$", text, re.MULTILINE)
    return {name: f"{word} {rest}" for word, name, rest in found}


Outcomes = dict[str, Future[Outcome]]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    """Every chosen run of this module by its name, some of them at once."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    chosen = {item.name for item in request.session.items if item.path == request.path}
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        stack.callback(pool.shutdown, cancel_futures=True)
        started: Outcomes = {}
        for test, recipe, runs in (
            ("test_mount", in_the_suites_recipe, MOUNTS),
            ("test_run", in_our_recipe, MACHINES),
        ):
            for run in runs:
                if chosen & {f"{test}[{run}]", f"test_as_on_a_real_kernel[{run}]"}:
                    files = Path(stack.enter_context(TemporaryDirectory(prefix="mdevfs-test-")))
                    files.chmod(0o777)  # for the ordinary user
                    started[f"{test} {run}"] = pool.submit(recipe, run, files)
        yield started


def check(run: Run, outcome: Outcome) -> None:
    """Passed is all but what must not be. Skips at the end where a client is not installed."""
    failed = {name: said for name, said in outcome.items() if said.startswith("FAIL")}
    assert not failed
    skipped = {name: said.removeprefix("SKIP ") for name, said in outcome.items() if said.startswith("SKIP")}
    missing = {name for name, reason in skipped.items() if reason.startswith("no ") or reason == "not installed"}
    assert skipped.keys() - missing == run.skips, skipped
    if missing:
        pytest.skip(f"all else passed; needs {', '.join(absent(*CLIENTS)) or ', '.join(missing)}")
    assert len(outcome) >= run.least, outcome


@pytest.mark.parametrize("run", MOUNTS, ids=str)
def test_mount(run: Run, outcomes: Outcomes) -> None:
    check(run, outcomes[f"test_mount {run}"].result())


@pytest.mark.parametrize("run", [run for run in MOUNTS if run.host in REAL], ids=str)
def test_as_on_a_real_kernel(run: Run, outcomes: Outcomes) -> None:
    """Check by check."""
    ours = outcomes[f"test_mount {run}"].result()
    check(run, ours)
    theirs = checks((RECORDINGS / REAL[run.host]).read_text())
    assert {name: said[:4] for name, said in ours.items()} == {name: said[:4] for name, said in theirs.items()}


@pytest.mark.parametrize("run", MACHINES, ids=str)
def test_run(run: Run, outcomes: Outcomes) -> None:
    check(run, outcomes[f"test_run {run}"].result())
