"""The attributes of the handshake: migration_version, mdevfs/last_verdict, mdevfs/check (v5 series, April 2020)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from mdevfs.errors import MdevfsError
from mdevfs.migration.model import MAX_STRING
from mdevfs.migration.verdict import (
    Journal,
    Reason,
    Record,
    RefusedVerdict,
    Verdict,
    verdict_of,
)
from mdevfs.sysfs.entries import Attribute, Entry, Session, SessionFile, WholeFile


class Endpoint(Protocol):
    """A type, an mdev or a physical function that takes part in the handshake."""

    last_verdict: Record | None

    @property
    def path(self) -> str:
        """Where it is in the tree."""

    @property
    def journal(self) -> Journal:
        """Who numbers its verdicts."""

    def migration_string(self) -> str | Awaitable[str]:
        """What it says of itself. Raises Refused (ENODEV: cannot migrate) or DriverFault."""

    def check_source(self, source: str) -> Verdict | Awaitable[Verdict]:
        """Whether state of a device that says `source` would load here."""


def parse(data: bytes) -> str | Verdict:
    """A written string without its one newline; or the verdict on what can be nobody's string."""
    text = data[:-1] if data[-1:] == b"\n" else data
    if text.isascii() and (source := text.decode("ascii")).isprintable() and 0 < len(source) <= MAX_STRING:
        return source
    return Verdict.no(_faults(text))


def _faults(text: bytes) -> list[Reason]:
    if not text:
        mend = "write what the source's migration_version reads"
        return [Reason("string-empty", "the string is empty", side="source", mend=mend)]
    reasons = []
    if len(text) > MAX_STRING:
        rule = f"the string has {len(text)} characters or more, at most {MAX_STRING} are allowed"
        reasons.append(Reason("string-too-long", rule, side="source"))
    if b"\n" in text:
        rule = "the string goes on after its newline"
        reasons.append(Reason("string-several-lines", rule, side="source", mend="write one string and one newline"))
    bad = next((byte for byte in text if not 32 <= byte < 127 and byte != 10), None)
    if bad is not None:
        rule = f"byte 0x{bad:02x} at {text.index(bad)} is not printable ASCII"
        reasons.append(Reason("string-not-printable", rule, side="source"))
    return reasons


async def judge(endpoint: Endpoint, data: bytes) -> Record:
    """The whole check of one written string; changes nothing but the journal."""
    source = parse(data)
    if isinstance(source, Verdict):
        text = data.removesuffix(b"\n").decode("latin-1")
        return endpoint.journal.record("handshake", endpoint, text, source)
    try:
        verdict = endpoint.check_source(source)
        if not isinstance(verdict, Verdict):
            verdict = await verdict
    except MdevfsError as error:
        verdict = verdict_of(error)
    return endpoint.journal.record("handshake", endpoint, source, verdict)


class CheckSession(Session):
    """One open `mdevfs/check`: every write is judged, a read gives the verdict on the last one."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.record: Record | None = None

    async def ask(self, data: bytes) -> None:
        self.record = await judge(self.endpoint, data)

    def answer(self) -> str:
        return self.record.json() if self.record is not None else ""


def version_entry(endpoint: Endpoint) -> dict[str, Entry]:
    """`migration_version`: the family of that name."""

    async def show() -> str:
        string = endpoint.migration_string()
        return (string if isinstance(string, str) else await string) + "\n"

    async def store(data: bytes) -> None:
        record = endpoint.last_verdict = await judge(endpoint, data)
        if record.verdict.reasons:
            raise RefusedVerdict(record.verdict)

    return {"migration_version": Attribute(show, store)}


def verdict_entries(endpoint: Endpoint, handshake: bool = True) -> dict[str, Entry]:
    """What the family `verdicts` shows in `mdevfs/`: `last_verdict`, and `check` where there is a handshake."""

    def last() -> str:
        return endpoint.last_verdict.json() if endpoint.last_verdict is not None else ""

    entries: dict[str, Entry] = {"last_verdict": WholeFile(last)}
    if handshake:
        entries["check"] = SessionFile(lambda: CheckSession(endpoint))
    return entries
