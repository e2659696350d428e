"""What vfio_ap's mdevs hold: every rule and text of its attributes (source: vfio_ap_ops.c, 6.1 and 6.12)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Set

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from mdevfs.errors import KernelError
from mdevfs.sysfs.parse import kstrtoull
from mdevfs.vendor import Apqn, ApUser, Refused
from vendor_drivers._vfio_ap_matrix import (
    Kind,
    Matrices,
    Matrix,
    format_mask,
    parse_config,
    parse_mask,
)

KINDS: tuple[Kind, ...] = ("adapter", "domain", "control_domain")


@define
class Host:
    """An AP bus by its facts alone; `kept` is the host's, everything else vfio_ap's."""

    max_adapter_id: int = 63
    max_domain_id: int = 15
    adapters: Set[int] = frozenset(range(64))
    domains: Set[int] = frozenset(range(16))
    kept: set[Apqn] = field(factory=set)
    unbound: set[Apqn] = field(factory=set)
    user: ApUser | None = None

    def reserved_for_host(self, apqn: Apqn) -> bool:
        return apqn in self.kept

    def bound_to_vfio_ap(self, apqn: Apqn) -> bool:
        return apqn not in self.kept | self.unbound


def refused(action: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        action()
    return caught.value


def fill(matrix: Matrix, adapters: Set[int] = frozenset(), domains: Set[int] = frozenset()) -> Matrix:
    for one in adapters:
        matrix.assign("adapter", one)
    for one in domains:
        matrix.assign("domain", one)
    return matrix


# -- assign and unassign


@pytest.mark.parametrize(
    ("written", "number"), [(b"4", 4), (b"0x4\n", 4), (b"04", 4), (b"010", 8), (b"0", 0), (b"+4", 4)]
)
def test_numbers_in_any_base(written: bytes, number: int) -> None:
    matrix = Matrices(Host()).add("a")
    matrix.assign("adapter", kstrtoull(written))
    assert matrix.adapters == {number}


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (b"four", errno.EINVAL),
        (b"4\n\n", errno.EINVAL),
        (b"-1", errno.EINVAL),
        (b"08", errno.EINVAL),
        (b"\n", errno.EINVAL),
        (b"18446744073709551616", errno.ERANGE),
    ],
)
def test_no_numbers(written: bytes, code: int) -> None:
    with pytest.raises(KernelError) as caught:
        kstrtoull(written)
    assert caught.value.errno == code


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("adapters", "domains"), [(63, 15), (255, 255), (7, 84)])
def test_above_the_maximum(kind: Kind, adapters: int, domains: int) -> None:
    matrix = Matrices(Host(max_adapter_id=adapters, max_domain_id=domains)).add("a")
    limit = adapters if kind == "adapter" else domains
    matrix.assign(kind, limit)
    assert refused(lambda: matrix.assign(kind, limit + 1)).errno == errno.ENODEV
    assert refused(lambda: matrix.unassign(kind, limit + 1)).errno == errno.ENODEV
    assert refused(lambda: matrix.assign(kind, 2**64 - 1)).errno == errno.ENODEV
    matrix.unassign(kind, limit)
    assert (matrix.matrix_text(), matrix.control_domains_text()) == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_again_is_success_and_changes_nothing(kind: Kind) -> None:
    matrix = Matrices(Host()).add("a")
    for _ in range(2):
        matrix.assign(kind, 3)
        assert (matrix.matrix_text() or matrix.control_domains_text()) != ""
    for _ in range(2):
        matrix.unassign(kind, 3)
        assert (matrix.matrix_text(), matrix.control_domains_text()) == ("", "")


def test_assigned_already_is_decided_before_ownership() -> None:
    host = Host()
    matrix = fill(Matrices(host).add("a"), {5}, {4})
    host.kept.add((5, 4))
    matrix.assign("adapter", 5)
    matrix.assign("domain", 4)
    assert refused(lambda: matrix.assign("adapter", 6)).errno == errno.EADDRNOTAVAIL


def test_one_queue_of_the_whole_matrix_is_the_hosts() -> None:
    matrix = fill(Matrices(Host(kept={(6, 4)})).add("a"), {5}, {4})
    error = refused(lambda: matrix.assign("adapter", 6))
    assert error.errno == errno.EADDRNOTAVAIL
    assert "06.0004" in error.reason.rule
    assert matrix.adapters == {5}
    matrix.unassign("domain", 4)
    matrix.assign("adapter", 6)
    assert refused(lambda: matrix.assign("domain", 4)).errno == errno.EADDRNOTAVAIL
    assert matrix.matrix_text() == "05.\n06.\n"


def test_one_queue_is_another_mdevs() -> None:
    family = Matrices(Host())
    fill(family.add("first"), {5, 6}, {4})
    matrix = fill(family.add("second"), {6}, {5})
    error = refused(lambda: matrix.assign("domain", 4))
    assert error.errno == errno.EADDRINUSE
    assert "06.0004" in error.reason.rule
    assert "first" in error.reason.rule
    assert matrix.domains == {5}
    family.drop("first")
    matrix.assign("domain", 4)


def test_the_hosts_comes_before_another_mdevs() -> None:
    family = Matrices(Host(kept={(5, 9)}))
    fill(family.add("first"), {5}, {4})
    matrix = fill(family.add("second"), set(), {4, 9})
    assert refused(lambda: matrix.assign("adapter", 5)).errno == errno.EADDRNOTAVAIL
    matrix.unassign("domain", 9)
    assert refused(lambda: matrix.assign("adapter", 5)).errno == errno.EADDRINUSE


def test_never_refused_for_ownership() -> None:
    host = Host(kept={(a, d) for a in range(64) for d in range(16)})
    family = Matrices(host)
    for name, adapters, domains in (("a", {5}, set()), ("b", {5}, set()), ("c", set(), {4}), ("d", set(), {4})):
        matrix = fill(family.add(name), adapters, domains)
        matrix.assign("control_domain", 4)
        assert matrix.control_domains_text() == "0004\n"
    full = family.all["a"]
    full.domains.add(4)
    full.assign("control_domain", 5)
    full.unassign("control_domain", 4)
    full.unassign("adapter", 5)
    full.unassign("domain", 4)
    assert full.matrix_text() == ""


# -- texts


def test_matrix_text() -> None:
    family = Matrices(Host(max_adapter_id=255, max_domain_id=255))
    matrix = family.add("a")
    assert matrix.matrix_text() == ""
    fill(matrix, {6, 5})
    assert matrix.matrix_text() == "05.\n06.\n"
    fill(matrix, set(), {0xAB, 4})
    assert matrix.matrix_text() == "05.0004\n05.00ab\n06.0004\n06.00ab\n"
    assert fill(family.add("b"), set(), {0x47, 4}).matrix_text() == ".0004\n.0047\n"


def test_control_domains_text() -> None:
    matrix = Matrices(Host(max_domain_id=255)).add("a")
    assert matrix.control_domains_text() == ""
    for one in (0xAB, 0, 9):
        matrix.assign("control_domain", one)
    assert matrix.control_domains_text() == "0000\n0009\n00ab\n"


def test_guest_matrix_leaves_out_adapters_with_a_queue_elsewhere() -> None:
    host = Host()
    matrix = fill(Matrices(host).add("a"), {5, 6}, {4, 7})
    assert matrix.guest_matrix_text() == matrix.matrix_text()
    host.unbound.add((6, 7))
    assert matrix.guest_matrix_text() == "05.0004\n05.0007\n"
    host.unbound.add((5, 4))
    assert matrix.guest_matrix_text() == ".0004\n.0007\n"
    assert len(matrix.matrix_text().splitlines()) == 4


def test_guest_matrix_has_only_what_the_host_has() -> None:
    matrix = fill(Matrices(Host(adapters={5}, domains={4})).add("a"), {5, 6}, {4, 7})
    assert matrix.guest_matrix_text() == "05.0004\n"
    nothing = fill(Matrices(Host(adapters=set(), domains=set())).add("a"), {5}, {4})
    assert nothing.guest_matrix_text() == ""


# -- ap_config


def test_ap_config_text() -> None:
    matrix = fill(Matrices(Host(max_adapter_id=255, max_domain_id=255)).add("a"), {0, 255}, {7})
    matrix.assign("control_domain", 8)
    masks = ["80" + "00" * 30 + "01", "01" + "00" * 31, "0080" + "00" * 30]
    assert matrix.ap_config_text() == ",".join(f"0x{mask}" for mask in masks) + "\n"


@given(st.frozensets(st.integers(0, 255)))
def test_masks_there_and_back(bits: frozenset[int]) -> None:
    text = format_mask(bits)
    assert len(text) == 66
    assert parse_mask(text.encode()) == bits
    # The rule itself, the long way: digit i holds the bits 4i to 4i + 3, the highest first.
    assert all((int(text[2 + bit // 4], 16) >> (3 - bit % 4) & 1) == (bit in bits) for bit in range(256))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"0x04,0x08,0x10\n", ({5}, {4}, {3})),
        (b"04,x08,0x1", ({5}, {4}, {3})),
        (b",,", (set(), set(), set())),
        (b"0x04,0x08\n", ({5}, {4}, set())),  # the newline separates: the third mask is empty
        (b"0x8,0x4,0x2,what follows is not read", ({0}, {1}, {2})),
        (b"0x8,0x4,0x2\0junk", ({0}, {1}, {2})),
        (b"0x" + b"0" * 63 + b"1,0x" + b"f" * 64 + b",0x0", ({255}, set(range(256)), set())),
    ],
)
def test_ap_config_parsed(written: bytes, expected: tuple[set[int], set[int], set[int]]) -> None:
    assert tuple(map(set, parse_config(written))) == expected


@pytest.mark.parametrize(
    "written",
    [
        b"0x04",
        b"0x04,0x08",
        b"",
        b"0x04,0x08,junk",
        b"0xg,0,0",
        b"0X1,0,0",
        b" 0,0,0",
        b"0 ,0,0",
        b"-1,0,0",
        b"0x" + b"0" * 65 + b",0,0",
    ],
)
def test_ap_config_junk_changes_nothing(written: bytes) -> None:
    matrix = fill(Matrices(Host()).add("a"), {5}, {4})
    assert refused(lambda: matrix.write_ap_config(written)).errno == errno.EINVAL
    assert matrix.matrix_text() == "05.0004\n"


def config(adapters: Set[int], domains: Set[int], control_domains: Set[int] = frozenset()) -> bytes:
    return ",".join(map(format_mask, (adapters, domains, control_domains))).encode() + b"\n"


def test_ap_config_replaces_everything() -> None:
    matrix = fill(Matrices(Host()).add("a"), {5}, {4})
    matrix.assign("control_domain", 1)
    matrix.write_ap_config(config({6}, {7}, {2, 3}))
    assert (matrix.matrix_text(), matrix.control_domains_text()) == ("06.0007\n", "0002\n0003\n")
    matrix.write_ap_config(matrix.ap_config_text().encode())
    assert matrix.matrix_text() == "06.0007\n"
    matrix.unassign("adapter", 6)
    assert matrix.matrix_text() == ".0007\n"


def test_ap_config_order_of_refusals() -> None:
    family = Matrices(Host(kept={(5, 4)}))
    fill(family.add("other"), {6}, {4})
    matrix = fill(family.add("a"), {7}, {4})
    for adapters, code in (({5, 6, 64}, errno.EADDRNOTAVAIL), ({6, 64}, errno.EADDRINUSE), ({64}, errno.ENODEV)):
        wanted = config(adapters, {4}, {1})
        assert refused(lambda wanted=wanted: matrix.write_ap_config(wanted)).errno == code  # type: ignore[misc]
        assert (matrix.matrix_text(), matrix.control_domains_text()) == ("07.0004\n", "")
    assert refused(lambda: matrix.write_ap_config(config({7}, {16}))).errno == errno.ENODEV
    assert refused(lambda: matrix.write_ap_config(config({7}, {4}, {16}))).errno == errno.ENODEV


# -- guests


def test_with_hotplug_all_writes_reach_the_guest() -> None:
    family = Matrices(Host())
    matrix = fill(family.add("a"), {5}, {4})
    matrix.open("vm")
    matrix.assign("adapter", 6)
    matrix.unassign("adapter", 5)
    matrix.write_ap_config(config({6, 7}, {4}))
    assert matrix.guest_matrix_text() == "06.0004\n07.0004\n"
    assert family.status((7, 4)) == "in use"


@pytest.mark.parametrize("kind", KINDS)
def test_without_hotplug_nothing_changes_while_in_use(kind: Kind) -> None:
    matrix = Matrices(Host(), hotplug=False).add("a")
    matrix.assign(kind, 3)
    matrix.open("vm")
    assert refused(lambda: matrix.assign(kind, 4)).errno == errno.EBUSY
    assert refused(lambda: matrix.unassign(kind, 3)).errno == errno.EBUSY
    matrix.close()
    matrix.unassign(kind, 3)


def test_one_mdev_per_guest() -> None:
    family = Matrices(Host())
    first, second = family.add("first"), family.add("second")
    first.open("vm")
    first.open("vm")  # itself is no other mdev
    error = refused(lambda: second.open("vm"))
    assert error.errno == errno.EPERM
    assert "first" in error.reason.rule
    second.open("other vm")
    first.close()
    second.close()
    second.open("vm")


def test_status_of_a_queue() -> None:
    host = Host(unbound={(6, 4)})
    family = Matrices(host)
    matrix = fill(family.add("a"), {5, 6}, {4})
    assert [family.status(one) for one in ((5, 4), (6, 4), (5, 5), (7, 4))] == ["assigned"] * 2 + ["unassigned"] * 2
    matrix.open("vm")
    assert [family.status(one) for one in ((5, 4), (6, 4))] == ["in use", "assigned"]


def test_in_use_asks_for_whole_queues() -> None:
    family = Matrices(Host())
    fill(family.add("a"), {5}, {4})
    fill(family.add("b"), {6}, {7})
    everything = frozenset(range(256))
    assert family.in_use({5}, everything)
    assert family.in_use(everything, {7})
    assert not family.in_use({5}, {7})
    assert not family.in_use({9}, everything)
