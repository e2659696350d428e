"""Why device state cannot be saved or loaded."""

from __future__ import annotations

import errno as _errno

from mdevfs.errors import Refusal, escape


class BadState(Refusal):
    """State that was refused; `rule` is a sentence without the names and numbers that the other attributes give.

    `device` is the section's name, `field` the path of a field ("PCIDevice/config", "e1000/mit_state/mac_reg[RDTR]"),
    `offset` where in the stream the refused bytes begin, `source` and `target` what came and what would do.
    """

    def __init__(
        self,
        code: str,
        errno: int = _errno.EINVAL,
        *,
        rule: str,
        device: str = "",
        field: str = "",
        offset: int | None = None,
        source: str | None = None,
        target: str | None = None,
        mend: str | None = None,
    ) -> None:
        self.code = code
        self.errno = errno
        self.rule = rule
        self.device = device
        self.field = field
        self.offset = offset
        self.source = source
        self.target = target
        self.mend = mend
        super().__init__(rule)

    def __str__(self) -> str:
        return self.sentence()

    def sentence(self) -> str:
        """Device, field, offset, the rule and both values on one line."""
        path = "/".join(part for part in (self.device, self.field) if part)
        at = f"at offset {self.offset}" if self.offset is not None else ""
        where = " ".join(part for part in (path, at) if part)
        values = [f"{side} {value}" for side, value in (("source", self.source), ("target", self.target)) if value]
        about = f" ({', '.join(values)})" if values else ""
        return escape(f"{where}: {self.rule}{about}" if where else f"{self.rule}{about}")
