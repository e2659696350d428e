"""Altered bytes for all that reads device state from elsewhere: loads, shows, comparisons, dumps.

    python -m tests.fuzzing COUNT SEED [FOLDER]

Reports in JSON what became of COUNT inputs. An input that ends in anything but a refusal, takes more than its time or
more memory than 64 MiB over its size, or touches the device that refuses it, ends the run: it is kept in FOLDER.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import re
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import trio
from attrs import frozen

from mdevfs.cli import state_diff, state_show
from mdevfs.errors import InputError
from mdevfs.host.single import Wanted, device
from mdevfs.mdev.mdev import Mdev
from mdevfs.mdev.sessions import BareLoader
from mdevfs.state import believe, dump, stream, values
from mdevfs.state.differences import differences
from mdevfs.state.refusal import BadState
from mdevfs.vendor.api import VendorDriver
from tests.unit import demo_stream
from tests.unit.demo_driver import DemoNic
from vendor_drivers.e1000 import E1000
from vendor_drivers.mtty import Mtty

VMSTATE = Path(__file__).parent / "vmstate"
MEMORY = 64 << 20  # bytes over an input's size
SECONDS = 10.0  # of processor time for one input
NUMBERS = (*range(9), 0x20, 0x7B, 0x7E, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TOKENS = rb"""{ } [ ] , : " \u -1 0 1e9 99999999999 null true "x" {} [] 1 4 65536""".split()
VALUE_END = re.compile(rb"[],}]")
KEYS = ("size", "array_len", "index", "struct", "fields", "subsections", "name", "type", "version", "vmsd_name")

Run = Callable[[bytes, Random], str]


@frozen
class Target:
    """Something that reads bytes: what it is fed with, how often, and what it makes of it."""

    name: str
    weight: int
    seeds: Sequence[bytes]
    run: Run


# -- altered bytes


def altered(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A few changes, small and large."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        random.choice(CHANGES)(found, random)
    if random.random() < 0.05:
        other = random.choice(others)
        cut = random.randrange(len(found) + 1)
        found[cut:] = other[random.randrange(len(other) + 1) :]
    if random.random() < 0.5:
        _mend_length(found)
    return bytes(found[: 2 << 20])


def _place(data: bytearray, random: Random) -> int:
    """Anywhere; half of the time where the framing is: near the beginning, or in the description."""
    if not data or random.random() < 0.4:
        return random.randrange(len(data) + 1)
    if random.random() < 0.4:
        return random.randrange(min(len(data), 120) + 1)
    begin = data.rfind(b"\0\6\0")
    return random.randrange(max(0, begin), len(data) + 1)


def _flip(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    if at < len(data):
        data[at] ^= 1 << random.randrange(8)


def _byte(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at : at + 1] = bytes([random.choice(NUMBERS) & 0xFF])


def _number(data: bytearray, random: Random) -> None:
    at, size = _place(data, random), random.choice((1, 2, 4, 8))
    data[at : at + size] = (random.choice(NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, "big")


def _drop(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    del data[at : at + random.choice((1, 1, 2, 4, 16, 1000))]


def _cut(data: bytearray, random: Random) -> None:
    del data[_place(data, random) :]


def _insert(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at:at] = random.randbytes(random.choice((1, 1, 2, 5, 64)))


def _token(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at:at] = random.choice(TOKENS)


def _copy(data: bytearray, random: Random) -> None:
    at, begin = _place(data, random), _place(data, random)
    data[at:at] = data[begin : begin + random.choice((1, 8, 40, 300))]


def _repeat(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    piece = bytes(data[at : at + random.choice((1, 3, 14, 60, 300))])
    data[at:at] = piece * random.choice((2, 10, 100, 10_000))


def _value(data: bytearray, random: Random) -> None:
    """Another value for a key of the description."""
    word = f'"{random.choice(KEYS)}": '.encode()
    begin = data.rfind(b"\0\6\0")
    at = data.find(word, random.randrange(max(0, begin), len(data) + 1))
    if at >= 0 and (end := VALUE_END.search(data, at + len(word))) is not None:
        data[at + len(word) : end.start()] = random.choice(TOKENS)


CHANGES = (_flip, _byte, _number, _drop, _cut, _insert, _token, _copy, _repeat, _value, _value)


def _mend_length(data: bytearray) -> None:
    """Lets the description's length be what it is, so that it is read."""
    at = data.rfind(b"\0\6\0")
    if at >= 0 and len(data) - at - 6 > 0:
        data[at + 2 : at + 6] = (len(data) - at - 6).to_bytes(4, "big")


# -- what reads them


def loading(mdev: Mdev) -> Run:
    """A load into a device that refuses most; whatever comes, the device stays what it is."""
    held = copy.deepcopy(mdev.state)

    def run(data: bytes, random: Random) -> str:
        place = mdev.device_state.place()
        bare = mdev.parent.description.bare
        loader: stream.Loader | BareLoader = BareLoader(place) if bare else stream.Loader([place])
        step = max(random.choice((7, 4096, 65536, len(data) + 1)), len(data) // 500)
        code = "loads"
        try:
            for at in range(0, len(data), step):
                loader.feed(data[at : at + step])
            loader.finish()
        except BadState as error:
            code = _plain(error).code
        assert (place.loaded is not None) >= (code == "loads")
        assert mdev.state == held, "the device was touched"
        return code

    return run


def showing(data: bytes, random: Random) -> str:
    """For programs and for people."""
    try:
        found = believe.read(data)
    except BadState as error:
        return error.code
    if random.random() < 0.5:
        values.write_json(_Nowhere().write, found.values())
    else:
        assert all(line.isprintable() for line in state_show.lines(found))
    problems = [_plain(problem) for problem in found.problems]
    return problems[0].code if problems else "whole"


def _plain(error: BadState) -> BadState:
    """Its text does nothing to a terminal."""
    assert str(error).isprintable(), ascii(str(error))
    return error


class _Nowhere(io.TextIOBase):
    """Takes any text and keeps none; checks that it is ASCII."""

    def write(self, text: str) -> int:
        assert text.isascii()
        return len(text)


def comparing(seed: bytes) -> Run:
    """With a stream that is whole."""
    whole = believe.read(seed)

    def run(data: bytes, random: Random) -> str:
        try:
            found = believe.read(data)
        except BadState as error:
            return error.code
        pair = (whole, found) if random.random() < 0.5 else (found, whole)
        said = [line.isprintable() for one in differences(*pair) for line in state_diff.lines(one)]
        assert all(said)
        return "differ" if said else "same"

    return run


def dumping(data: bytes, random: Random) -> str:
    """Dumps of descriptions."""
    try:
        dump.parse(data, "a dump")
        said = ""
    except InputError as error:
        said = str(error)
    assert said.replace("\n", "").isprintable(), ascii(said)
    return "refused" if said else "whole"


def made(driver: type[VendorDriver], **words: str) -> Mdev:
    """A device that a guest has used."""
    mdev = trio.run(device, Wanted(driver, **words))
    mdev.parent.driver.exercise(mdev, 1)
    return mdev


def targets() -> list[Target]:
    """All of them, with what they are fed with before it is altered."""
    nic = made(E1000, machine="pc-q35-7.2")
    large, small = (
        gzip.decompress((VMSTATE / f"real-e1000-pc-q35-{one}.mig.gz").read_bytes()) for one in ("7.2", "2.4")
    )
    demo, ports = made(DemoNic), made(Mtty)
    streams = [demo_stream.written(demo_stream.view(seed)) for seed in (7, 8)]
    saved = b"".join(stream.write("", [demo.device_state.save()]))
    bare = b"".join(ports.device_state.save().body)
    wrapped = b"".join(stream.write("", [ports.device_state.save()]))
    dumps = [(VMSTATE / f"dump-qemu{one}-pc-q35-7.2.json").read_bytes() for one in ("7.2", "11.1")]
    return [
        Target("load demo", 40, [saved], loading(demo)),
        Target("load e1000", 12, [small], loading(nic)),
        Target("load e1000, large", 4, [large], loading(nic)),
        Target("load mtty", 6, [bare], loading(ports)),
        Target("show", 24, [*streams, saved, wrapped, *demo_stream.odd()], showing),
        Target("show e1000", 4, [small], showing),
        Target("diff", 8, [*streams, saved], comparing(streams[0])),
        Target("dump", 2, dumps, dumping),
    ]


# -- the run


@contextmanager
def limited(base: int, size: int) -> Iterator[None]:
    """So much memory over what the process has, and so much time."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY + size, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def address_space() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def run(count: int, seed: int, folder: Path) -> dict[str, object]:
    """The report; `failed` says what went wrong."""
    signal.signal(signal.SIGVTALRM, _too_slow)
    found = targets()
    everything = [one for target in found for one in target.seeds]
    for target in found:  # once each, so that what is imported late is there
        for one in target.seeds:
            target.run(one, Random(seed))
    answers: dict[str, Counter[str]] = {target.name: Counter() for target in found}
    base, began, longest, largest, size = address_space(), time.monotonic(), 0.0, 0, 0
    for index in range(count):
        random = Random(f"{seed} {index}")
        target = random.choices(found, [one.weight for one in found])[0]
        data = altered(random.choice(target.seeds), random, everything)
        started = time.process_time()
        try:
            with limited(base, len(data)):
                answers[target.name][target.run(data, random)] += 1
        except BaseException:
            file = folder / f"fuzz-{seed}-{index}"
            file.write_bytes(data)
            return {"failed": f"{target.name}, kept in {file}:\n{traceback.format_exc()}"}
        if (spent := time.process_time() - started) > longest:
            longest, size = spent, len(data)
        largest = max(largest, len(data))
    return {
        "failed": None,
        "inputs": count,
        "seconds": round(time.monotonic() - began, 1),
        "longest": {"seconds": round(longest, 3), "bytes": size},
        "largest": largest,
        "grown": address_space() - base,
        "answers": {name: dict(one.most_common()) for name, one in answers.items()},
    }


if __name__ == "__main__":
    number, start, *where = sys.argv[1:]
    sys.stdout.write(json.dumps(run(int(number), int(start), Path(*where)), indent=1) + "\n")
