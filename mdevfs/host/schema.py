"""The schema of host.toml. What only the drivers can know (types, settings, addresses) is checked in `build`."""

from __future__ import annotations

import errno
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticKnownError

from mdevfs.sysfs.faults import On

INTERFACES = ("migration_version", "models", "compatible_devices", "verdicts", "state", "query", "debugfs")
DEFAULT_INTERFACES = frozenset(INTERFACES) - {"query"}
UUID_PATTERN = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
KERNEL_PATTERN = r"^\d{1,3}\.\d{1,3}(\.\d+)?$"
NAME_PATTERN = r"^\S+$"
FORMS = {  # a pattern in words
    UUID_PATTERN: "a UUID such as uuidgen prints",
    KERNEL_PATTERN: "a kernel release such as 6.1",
    NAME_PATTERN: "a name without white space",
}

ERRNOS = tuple(sorted(errno.errorcode.values()))
Interface = Literal["migration_version", "models", "compatible_devices", "verdicts", "state", "query", "debugfs"]
Quirk = Literal["remove-race", "double-remove"]


class Section(BaseModel):
    """A table whose unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HostSection(Section):
    """`[host]`: the machine."""

    name: str = Field(default="host", description="what the host is called in messages", pattern=NAME_PATTERN)
    kernel: str = Field(default="6.1", description="whose tree and quirks", pattern=KERNEL_PATTERN)
    kernel_quirks: list[Quirk] = Field(default=[], description="kernel bugs to imitate")
    machine: str | None = Field(default=None, description="the machine type whose compat properties apply")
    compat: dict[str, str] = Field(default={}, description='single compat properties, "driver.property" = "value"')
    drivers: list[str] = Field(default=[], description="driver files, relative to this file")
    interfaces: list[Interface] | None = Field(
        default=None, description='families beyond the kernel\'s tree; absent: all but "query"; []: none'
    )


class SriovSection(Section):
    """`sriov`: virtual functions of a PCI function."""

    total: int = Field(ge=0, le=65535, description="sriov_totalvfs")
    num: int = Field(default=0, ge=0, le=65535, description="VFs there from the start")


class MdevSection(Section):
    """`[[device.mdev]]`: one mdev, or `count` of them, there from the start."""

    uuid: str | None = Field(default=None, pattern=UUID_PATTERN)
    count: int | None = Field(default=None, ge=1, le=1_000_000)
    type: str = Field(description="a type-id of the device")
    params: str | None = Field(default=None, description="as written to create after the UUID's comma")

    @model_validator(mode="after")
    def _one_of(self) -> MdevSection:
        if (self.uuid is None) == (self.count is None):
            raise ValueError("give either uuid or count")
        return self


class DeviceSection(Section):
    """`[[device]]`: one device and its vendor driver."""

    driver: str = Field(description="vendor driver, by its name")
    address: str | None = Field(default=None, description="where it sits on its bus")
    iommu_group: Annotated[int, Field(ge=0)] | None = None
    numa_node: Annotated[int, Field(ge=0)] | None = None
    sriov: SriovSection | None = None
    settings: dict[str, Any] = Field(default={}, description="the driver's own")
    late: Annotated[float, Field(ge=0.0)] = Field(
        default=0.0, description="seconds after a boot until it is there; inf: when `mdevfs control DIR add` says so"
    )
    mdev: list[MdevSection] = []


def _errno_name(name: str) -> str:
    if name not in ERRNOS:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, ERRNOS))})
    return name


class FaultSection(Section):
    """`[[fault]]`: what strikes an attribute, or a vendor driver's hook, instead of what it should do."""

    path: str = Field(
        default="*", min_length=1, description="of an attribute, of an mdev for hooks; a shell pattern, * matches all"
    )
    on: On | None = Field(default=None, description="absent: reads and writes; with text: reads")
    slow: float = Field(default=0.0, ge=0.0, description="seconds; inf: until the fault is cleared")
    errno: Annotated[str, AfterValidator(_errno_name)] | None = Field(default=None, description="such as EIO")
    text: str | None = Field(default=None, description="what a read gives instead")
    count: int | None = Field(default=None, ge=1, description="how often it strikes; absent: for ever")
    skip: int = Field(default=0, ge=0, description="how many accesses pass first")
    probability: float = Field(default=1.0, gt=0.0, le=1.0, description="with which an access is struck")
    seed: int = Field(default=0, description="of the probability's dice")

    @model_validator(mode="after")
    def _does_one_thing(self) -> FaultSection:
        if not self.slow and self.errno is None and self.text is None:
            raise ValueError("a fault does something: give slow, errno or text")
        if self.errno is not None and self.text is not None:
            raise ValueError("a read that fails with errno has no text: give one of the two")
        if self.text is not None and self.on not in (None, "read"):
            raise ValueError(f'text is what a read gives: it cannot be on "{self.on}"')
        if self.path == "*" and self.on not in ("probe", "remove"):
            raise ValueError("a fault of an attribute needs its path, such as */available_instances")
        return self

    @property
    def strikes(self) -> frozenset[On]:
        """The accesses that it strikes."""
        if self.on is not None:
            return frozenset({self.on})
        return frozenset({"read"}) if self.text is not None else frozenset({"read", "write"})


class HostFile(Section):
    """A whole host.toml."""

    host: HostSection = HostSection()
    device: list[DeviceSection] = []
    fault: list[FaultSection] = []
