"""Every figure: how it is had, what it is compared with, and its goal. Goals are reported, never enforced."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import attrs

from vendor_drivers.my_nic import MyNic

from . import inside, state
from .servers import Machines
from .timing import Result, Sampler, absolute, compare, external, repeated, timed
from .trees import (
    BARE_TYPE,
    SYSFS_ATTRIBUTE,
    SYSFS_REAL_ATTRIBUTE,
    MdevTree,
    compiled,
    list_names,
    new_names,
    open_read_close,
    write,
)

NIC = "vendor-a.com/my-nic,rx-filter-size"
FEW = 100  # mdevs of the small host in the growth rows


@attrs.frozen
class Scale:
    """How much is measured: `rounds` of quick operations, `mounts` of fresh servers, `mdevs` in the big host."""

    rounds: int = 10
    count: int = 300
    mounts: int = 5
    mdevs: int = 100_000


@attrs.frozen
class Measure:
    """One row before it is measured; `goal` is a ratio where there is a reference, else in `unit`."""

    name: str
    unit: str
    compared_with: str
    goal: float | None
    run: Callable[[Machines, Scale], Result]


def stat(machines: Machines, scale: Scale) -> Result:
    """By its real path, which the kernel answers from its cache; sysfs's usual path has a link on the way."""
    return _stat(f"{MdevTree.find(machines.plain).parent}/uevent", SYSFS_ATTRIBUTE, scale)


def stat_by_real_paths(machines: Machines, scale: Scale) -> Result:
    """The same with no link on either side."""
    return _stat(f"{MdevTree.find(machines.plain).parent}/uevent", SYSFS_REAL_ATTRIBUTE, scale)


def stat_through_link(machines: Machines, scale: Scale) -> Result:
    """As clients go, through class/: FUSE asks the server for every link on the way."""
    return _stat(f"{MdevTree.find(machines.plain).parent_link}/uevent", SYSFS_ATTRIBUTE, scale)


def _stat(path: str, reference: str, scale: Scale) -> Result:
    with TemporaryDirectory() as directory:
        program = compiled(Path(__file__).with_name("statloop.c"), Path(directory))
        ours = external([str(program), path, str(scale.count), "20"])
        return compare(ours, external([str(program), reference, str(scale.count), "20"]), scale.rounds)


def read(machines: Machines, scale: Scale, reference: str) -> Result:
    attribute = f"{MdevTree.find(machines.plain).type}/available_instances"
    ours = repeated(open_read_close(attribute), scale.count)
    return compare(ours, repeated(open_read_close(reference), scale.count), scale.rounds)


def read_against_bare(machines: Machines, scale: Scale) -> Result:
    return read(machines, scale, str(machines.bare / BARE_TYPE / "available_instances"))


def read_against_sysfs(machines: Machines, scale: Scale) -> Result:
    return read(machines, scale, SYSFS_ATTRIBUTE)


def handshake_on_open_descriptor(machines: Machines, scale: Scale) -> Result:
    path, text = MdevTree.find(machines.plain).migration_version()
    ours = os.open(path, os.O_WRONLY)
    theirs = os.open(_bare_migration_version(machines), os.O_WRONLY)
    try:
        return compare(
            repeated(partial(os.write, ours, text), scale.count),
            repeated(partial(os.write, theirs, text), scale.count),
            scale.rounds,
        )
    finally:
        os.close(ours)
        os.close(theirs)


def handshake_by_path(machines: Machines, scale: Scale) -> Result:
    path, text = MdevTree.find(machines.plain).migration_version()
    bare = _bare_migration_version(machines)
    return compare(
        repeated(partial(write, path, text), scale.count),
        repeated(partial(write, bare, text), scale.count),
        scale.rounds,
    )


def create_and_remove(machines: Machines, scale: Scale) -> Result:
    return _create_and_remove(machines, scale, MdevTree.remove)


def create_and_remove_by_link(machines: Machines, scale: Scale) -> Result:
    return _create_and_remove(machines, scale, MdevTree.remove_by_link)


def _create_and_remove(machines: Machines, scale: Scale, remove: Callable[[MdevTree, str], None]) -> Result:
    tree = MdevTree.find(machines.plain)
    bare = _bare_migration_version(machines)
    names = iter(new_names(scale.rounds * scale.count))

    def ours() -> None:
        name = next(names)
        tree.create(name)
        remove(tree, name)

    def theirs() -> None:
        write(bare, b"1")
        write(bare, b"1")

    return compare(repeated(ours, scale.count), repeated(theirs, scale.count), scale.rounds)


def _bare_migration_version(machines: Machines) -> str:
    return str(machines.bare / BARE_TYPE / "migration_version")


def listing(machines: Machines, scale: Scale) -> Result:
    """The first listing of each of several fresh mounts: nothing is in the kernel's cache."""

    def ours() -> list[float]:
        with machines.fresh_many(scale.mdevs) as server:
            return [timed(partial(list_names, server.directory / "bus/mdev/devices"))]

    def theirs() -> list[float]:
        with machines.fresh_bare(scale.mdevs) as server:
            return [timed(partial(list_names, server.directory / "many"))]

    return compare(ours, theirs, scale.mounts)


def memory(machines: Machines, scale: Scale) -> Result:
    return _per_mdev(machines, scale, machines.many(scale.mdevs).resident_at_start)


def memory_after_listing(machines: Machines, scale: Scale) -> Result:
    """After `ls -f`, when the kernel holds every link of bus/mdev/devices."""
    server = machines.many(scale.mdevs)
    list_names(server.directory / "bus/mdev/devices")
    return _per_mdev(machines, scale, server.resident())


def _per_mdev(machines: Machines, scale: Scale, resident: int) -> Result:
    return absolute([(resident - machines.many(0).resident_at_start) / scale.mdevs])


def growth(sampler_on: Callable[[MdevTree, Scale], Sampler]) -> Callable[[Machines, Scale], Result]:
    """Compare what `sampler_on` does with all the mdevs there and with few."""

    def run(machines: Machines, scale: Scale) -> Result:
        big = MdevTree.find(machines.many(scale.mdevs).directory)
        small = MdevTree.find(machines.many(FEW).directory)
        return compare(sampler_on(big, scale), sampler_on(small, scale), scale.rounds)

    return run


def creating(tree: MdevTree, scale: Scale) -> Sampler:
    def one_round() -> list[float]:
        names = new_names(scale.count // 4)
        samples = [timed(partial(tree.create, name)) for name in names]
        for name in names:
            tree.remove(name)
        return samples

    return one_round


def removing(tree: MdevTree, scale: Scale) -> Sampler:
    def one_round() -> list[float]:
        names = new_names(scale.count // 4)
        for name in names:
            tree.create(name)
        return [timed(partial(tree.remove, name)) for name in names]

    return one_round


def looking_up(tree: MdevTree, scale: Scale) -> Sampler:
    """Directories that nobody has looked up: some old ones (few hosts have many), and new ones."""
    old = tree.old_names()

    def one_round() -> list[float]:
        new = new_names(scale.count // 4)
        for name in new:
            tree.create(name)
        names = [*new, *itertools.islice(old, FEW // scale.rounds)]
        samples = [timed(partial(os.stat, f"{tree.parent}/{name}")) for name in names]
        for name in new:
            tree.remove(name)
        return samples

    return one_round


def reading(tree: MdevTree, scale: Scale) -> Sampler:
    """An attribute of each of some old mdevs, looked up before."""
    paths = [f"{tree.parent}/{name}/uevent" for name in itertools.islice(tree.old_names(), FEW)]

    def one_round() -> list[float]:
        for path in paths:
            os.stat(path)  # noqa: PTH116 -- the bare call, as in what is timed
        return [timed(open_read_close(path)) for path in paths]

    return one_round


def checking(source: str, compatible: bool) -> Callable[[Machines, Scale], Result]:
    """The tutorial driver's model in this process: what a check costs without any file system."""

    def run(machines: Machines, scale: Scale) -> Result:
        model, values = MyNic.model, MyNic.model.initial()
        assert model.check(values, source).compatible is compatible
        operation = repeated(partial(model.check, values, source), scale.count, batch=100)
        return absolute([median(operation()) for _ in range(scale.rounds)])

    return run


def start(machines: Machines, scale: Scale) -> Result:
    return absolute([machines.start_in_background(machines.host) for _ in range(scale.mounts)])


def start_with_many(machines: Machines, scale: Scale) -> Result:
    host = machines.host_of(scale.mdevs)
    return absolute([machines.start_in_background(host) for _ in range(scale.mounts)])


def help_text(machines: Machines, scale: Scale) -> Result:
    return absolute([timed(partial(machines.command, "--help")) for _ in range(scale.rounds)])


def measures(scale: Scale, host: str) -> list[Measure]:
    """All rows, in the order of the table."""
    many, few = f"{scale.mdevs:,} mdevs", f"the same at {FEW} mdevs"
    bare_write = "bare pyfuse3, the same calls"
    shipped = host if "/" not in host else Path(host).name
    large = f"{state.SIZE // state.MIB} MiB of device state"
    listed = f"{inside.LISTED:,} mdevs"
    return [
        Measure("stat of an attribute", "us", f"real sysfs, {SYSFS_ATTRIBUTE}", 0.5, stat),
        Measure("stat, no link on either side", "us", f"real sysfs, {SYSFS_REAL_ATTRIBUTE}", None, stat_by_real_paths),
        Measure("stat, a link on both sides", "us", f"real sysfs, {SYSFS_ATTRIBUTE}", None, stat_through_link),
        Measure("open+read+close", "us", "bare pyfuse3", 1.15, read_against_bare),
        Measure("open+read+close, sysfs", "us", f"real sysfs, {SYSFS_ATTRIBUTE}", None, read_against_sysfs),
        Measure("handshake, open descriptor", "us", "bare pyfuse3, a write", 1.2, handshake_on_open_descriptor),
        Measure("handshake, open+write+close", "us", bare_write, 1.3, handshake_by_path),
        Measure("create + remove of an mdev", "us", "bare pyfuse3, two open+write+close", 4, create_and_remove),
        Measure("create + remove by the bus's link", "us", "bare pyfuse3, the same", None, create_and_remove_by_link),
        Measure(f"first ls -f of {many}", "ms", "bare pyfuse3, as many names", 1.3, listing),
        Measure(f"memory per mdev at {many}", "KiB", "above the empty mount", 1.5, memory),
        Measure("memory per mdev after ls -f", "KiB", "above the empty mount", None, memory_after_listing),
        Measure(f"create at {many}", "us", few, 1.15, growth(creating)),
        Measure(f"lookup at {many}", "us", few, 1.15, growth(looking_up)),
        Measure(f"read at {many}", "us", few, 1.15, growth(reading)),
        Measure(f"remove at {many}", "us", few, 1.15, growth(removing)),
        Measure("check of a declared model, a yes", "us", "in process", 5, checking(f"{NIC}=64", True)),
        Measure("check of a declared model, a no", "us", "in process", 5, checking(f"{NIC}=32", False)),
        Measure(f"save {large}", "s", "bare pyfuse3, cat", 2, state.saving),
        Measure(f"load {large}", "s", "bare pyfuse3, cat", 2, state.loading),
        Measure("memory that a save takes", "MiB", "above the device", 64, state.saving_memory),
        Measure("memory that a load takes", "MiB", "above the new state", 64, state.loading_memory),
        Measure(f"mdevfs mount {shipped}", "s", "", 0.6, start),
        Measure(f"mdevfs mount with {many}", "s", "", 3.0, start_with_many),
        Measure("mdevfs --help", "s", "", 0.25, help_text),
        Measure(f"mdevfs run {shipped} -- true", "s", "", 0.8, inside.start),
        Measure(f"mdevctl list of {listed} inside", "ms", "its static copy in tmpfs", 2, inside.listing),
        Measure(f"the first mdevctl list of {listed}", "ms", "its static copy", 2, inside.first_listing),
        Measure("stat of / inside", "us", "the same with --statfs=none", 1.05, inside.other_calls),
    ]
