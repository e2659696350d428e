"""NVIDIA vGPU in its mdev form: vGPU manager 17 (550) on a GPU that is itself the parent, or whose VFs are.

Sources: NVIDIA's open kernel modules (os-hypervisor.c, kernel_vgpu_mgr.c), its vgpu-vfio layer as published, and its
vGPU user guide 17.6. In the default mode all vGPUs of a GPU have one framebuffer size.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from mdevfs.vendor import (
    InputError,
    KernelError,
    Mdev,
    MdevType,
    Page,
    Parent,
    PciIdentity,
    Reason,
    Refused,
    SriovCapability,
    Type,
    VendorDriver,
    Verdict,
    show,
    store,
)
from mdevfs.vendor import Settings as Base
from vendor_drivers._nvidia_types import BOARDS, PROFILES, Board, Profile

MAX_PARAMS = 1024  # bytes of one write, its last one included (VGPU_CONFIG_PARAMS_MAX_LENGTH)
MODEL = "nvidia.com/vgpu"
_STRING = re.compile(re.escape(MODEL) + r",board=([^,]+),type=([^,]+),release=([^,]+)\Z")


class Nvidia(VendorDriver):
    """A GPU shared by vGPUs of one framebuffer size; on an A16 each of them takes a VF."""

    api = 1
    name = "nvidia"
    bus = "pci"
    mdev_driver = "nvidia-vgpu-vfio"
    mdev_driver_since = "5.14"  # where the kernel lets it: its layer asks for mdev_parent_ops.device_driver

    variants = ({"driver_release": "535.161.05"}, {}, {"board": "A16"})

    class Settings(Base):
        board: Literal["T4", "A16"] = Field(default="T4", description="T4: the GPU is the parent; A16: its VFs are")
        driver_release: str = Field(
            default="550.163.02",
            pattern=r"^\d+(\.\d+)+$",
            max_length=32,
            description="of the vGPU manager; a vGPU migrates between equal ones only",
        )

    # -- the bus

    def pci(self, settings: Settings) -> PciIdentity:
        """Of the whole GPU."""
        return BOARDS[settings.board].identity()

    def sriov(self, settings: Settings, total: int) -> SriovCapability:
        """For boards whose VFs are the parents. Raises InputError for the others."""
        board = BOARDS[settings.board]
        if not board.on_vfs:
            raise InputError(f"sriov: a {board.title}'s vGPUs need no VFs, the GPU itself is the parent: leave it out")
        return board.sriov(total)

    def is_parent(self, settings: Settings, *, vf: bool) -> bool:
        """The GPU or its VFs, never both."""
        return BOARDS[settings.board].on_vfs == vf

    # -- types and vGPUs

    def types(self, parent: Parent) -> list[MdevType]:
        """`nvidia-<id>`, in the order of the ids; a VF describes the GPU's maxima as its own."""
        board = _board(parent)
        return [
            MdevType(
                str(number),
                name=f"{board.prefix}-{suffix}",
                description=PROFILES[suffix].description,
                data=PROFILES[suffix],
            )
            for suffix, number in sorted(board.ids.items(), key=lambda item: item[1])
        ]

    def available(self, type: Type) -> int:
        """What the GPU still takes of this type; a VF says 1 or 0."""
        if _refusal(type) is not None:
            return 0
        return 1 if _board(type.parent).on_vfs else _profile(type).max_instances - len(list(_vgpus(type.parent)))

    def claim(self, type: Type) -> None:
        """EIO, whatever the resource manager's reason is."""
        refusal = _refusal(type)
        if refusal is not None:
            raise refusal

    def probe(self, mdev: Mdev) -> None:
        """A vGPU begins without parameters."""
        mdev.data = b""

    @show("nvidia/vgpu_params")
    def vgpu_params(self, mdev: Mdev) -> bytes:
        """The stored text and a newline."""
        return _params(mdev) + b"\n"

    @store("nvidia/vgpu_params")
    def set_vgpu_params(self, mdev: Mdev, data: bytes) -> None:
        """Replaces all; nothing is parsed. The last byte, meant for the newline, is dropped whatever it is: one space
        alone clears, and one with a newline is kept as a space, which holds no parameter. E2BIG beyond the limit."""
        if len(data) > MAX_PARAMS:
            raise KernelError(errno.E2BIG)
        mdev.data = data[:-1].partition(b"\0")[0]

    @show("nvidia/vm_name")
    def vm_name(self, mdev: Mdev) -> str:
        """Empty: no VM has it open here."""
        return "\n"

    # -- the handshake. Form and check of the string are ours: NVIDIA's own check is not public. Its guide asks for the
    # same GPU and the same type; which releases load each other's state is not said, so they must be equal.

    def migration_string(self, device: Mdev | Type | Parent) -> str:
        """`nvidia.com/vgpu,board=<PCI id>,type=<type-id>,release=<driver release>`. ENODEV for a GPU or VF."""
        if isinstance(device, Parent):
            raise Refused("cannot-migrate", errno.ENODEV, rule="its vGPUs migrate, the GPU does not", side="both")
        board, type_id, release = _state_of(device)
        return f"{MODEL},board={board},type={type_id},release={release}"

    def check(self, device: Mdev | Type | Parent, source: str) -> Verdict:
        """Compatible when all three parts are equal; a reason for each that is not."""
        target = self.migration_string(device)
        assert not isinstance(device, Parent)
        match = _STRING.match(source)
        if match is None:
            return Verdict.no([_malformed(source, target)])
        parts = (
            ("nvidia-board", "board", "choose a host with the source's GPU"),
            ("nvidia-type", "type", "create a target of the source's type"),
            ("nvidia-release", "release", "run the same vGPU manager on both hosts"),
        )
        return Verdict.no(
            Reason(code, "must be equal", parameter, theirs, ours, mend=mend)
            for (code, parameter, mend), theirs, ours in zip(parts, match.groups(), _state_of(device), strict=True)
            if theirs != ours
        )

    pages = [
        Page(
            code="nvidia-size",
            title="the GPU's vGPUs have another framebuffer size",
            what="In the default mode all vGPUs of a GPU have one framebuffer size, whatever their series (Q, A, B, "
            "C). The first one that is created decides.",
            example="GRID T4-2Q (2048M) on a GPU that runs GRID T4-1B (1024M)",
            side="target",
            mend="Choose a type of the same size or another GPU, or remove the GPU's vGPUs first.",
            source="NVIDIA vGPU user guide 17.6; kernel_vgpu_mgr.c",
        ),
        Page(
            code="nvidia-full",
            title="the GPU has no room for another vGPU",
            what="The GPU runs as many vGPUs as its memory holds: the type's max_instance counts those of all types.",
            example="a third GRID T4-8Q on a GPU of 16 GB",
            side="target",
            mend="Choose another GPU, or remove a vGPU of this one.",
            source="kernel_vgpu_mgr.c; description of the type: max_instance",
        ),
        Page(
            code="nvidia-vf-taken",
            title="the virtual function has its vGPU",
            what="On GPUs with SR-IOV each virtual function carries one vGPU, whatever its type.",
            example="a second vGPU on 0000:41:00.4",
            side="target",
            mend="Choose a virtual function that shows available_instances 1 for the type, or remove its vGPU.",
            source="NVIDIA vGPU user guide 17.6; kernel_vgpu_mgr.c",
        ),
        Page(
            code="nvidia-board",
            title="another GPU board",
            what="The state of a vGPU is tied to the kind of GPU that it ran on.",
            example="source 10de:1eb8 (Tesla T4), target 10de:25b6 (A16)",
            side="target",
            mend="Choose a host whose GPU has the source's PCI ids.",
            source="NVIDIA vGPU user guide: migration needs the same GPU at both ends; the check itself is not public",
        ),
        Page(
            code="nvidia-type",
            title="another vGPU type",
            what="Source and target have different vGPU types; also types of one framebuffer size do not mix.",
            example="source nvidia-230 (GRID T4-1Q), target nvidia-222 (GRID T4-1B)",
            side="target",
            mend="Create the target with the source's type.",
            source="NVIDIA vGPU user guide: migration needs the same type at both ends; the check itself is not public",
        ),
        Page(
            code="nvidia-release",
            title="another release of the driver",
            what="The vGPU managers of the two hosts differ. Which releases load each other's state is not public, "
            "so anything but the same one is refused.",
            example="source 550.163.02, target 535.247.01",
            side="both",
            mend="Bring both hosts to the same vGPU manager.",
            source="mdevfs: the form of the string and this rule are its own",
        ),
    ]


def _settings(parent: Parent) -> Nvidia.Settings:
    assert isinstance(parent.settings, Nvidia.Settings)
    return parent.settings


def _board(parent: Parent) -> Board:
    return BOARDS[_settings(parent).board]


def _profile(type: Type) -> Profile:
    assert isinstance(type.spec.data, Profile)
    return type.spec.data


def _params(mdev: Mdev) -> bytes:
    assert isinstance(mdev.data, bytes)
    return mdev.data


def _vgpus(parent: Parent) -> Iterator[Profile]:
    """What runs on the whole GPU, one for each vGPU."""
    kinds = (kind for one in parent.siblings if one.used for kind in one.types.values())
    return (_profile(kind) for kind in kinds for _ in range(kind.bound))


def _refusal(type: Type) -> Refused | None:
    """Why the resource manager would not create this; None: it would."""
    parent, profile, running = type.parent, _profile(type), list(_vgpus(type.parent))
    if _board(parent).on_vfs and parent.used:
        return Refused(
            "nvidia-vf-taken",
            errno.EIO,
            rule=f"{parent.name} has its one vGPU",
            side="target",
            mend="choose a virtual function that shows available_instances 1, or remove its vGPU",
        )
    if running and running[0].framebuffer != profile.framebuffer:
        return Refused(
            "nvidia-size",
            errno.EIO,
            parameter="framebuffer",
            rule="all vGPUs of a GPU have one framebuffer size",
            source=f"{profile.framebuffer}M",
            target=f"{running[0].framebuffer}M",
            side="target",
            mend="choose a type of the GPU's size or another GPU, or remove the GPU's vGPUs first",
        )
    if len(running) >= profile.max_instances:
        return Refused(
            "nvidia-full",
            errno.EIO,
            parameter="max_instance",
            rule=f"the GPU runs {len(running)} vGPUs and holds {profile.max_instances} of {type.name}",
            side="target",
            mend="choose another GPU, or remove a vGPU of this one",
        )
    return None


def _state_of(device: Mdev | Type) -> tuple[str, str, str]:
    """What the device state depends on: board, type, driver release."""
    return _board(device.parent).pci_id, device.type.name, _settings(device.parent).driver_release


def _malformed(source: str, target: str) -> Reason:
    if source.split(",")[0] != MODEL:
        rule, mend = "the string is not NVIDIA's", "choose a source that is an NVIDIA vGPU"
        return Reason("other-vendor", rule, source=source, target=target, mend=mend)
    rule, mend = f"the string is not {MODEL},board=...,type=...,release=...", "copy the whole string from the source"
    return Reason("string-malformed", rule, source=source, target=target, side="source", mend=mend)
