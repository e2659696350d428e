"""A source's string: it comes from elsewhere, so it is bounded and kept byte for byte."""

from __future__ import annotations

import attrs

PAGE = 4096
"""Bytes that one read or write of an attribute can carry."""


def _bounded(data: bytes) -> bytes:
    return data[: PAGE + 1]


@attrs.frozen
class SourceString:
    """A source's migration_version string as it was read, its newline included; it may be anything at all.

    Holds at most one byte more than a page: enough to know that it is too long.
    """

    data: bytes = attrs.field(converter=_bounded)

    @classmethod
    def from_text(cls, text: str) -> SourceString:
        """From a command line's argument, whose undecodable bytes Python keeps as surrogates."""
        return cls(text.encode("utf-8", "surrogateescape"))

    @property
    def bare(self) -> bytes:
        """The string without its one newline."""
        return self.data.removesuffix(b"\n")

    @property
    def text(self) -> str:
        """The bare string, each byte one character, as verdicts show it."""
        return self.bare.decode("latin-1")
