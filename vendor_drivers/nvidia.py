"""NVIDIA vGPU in its mdev form: vGPU manager 17 (550) on a GPU that is itself the parent, or whose VFs are.

Sources: NVIDIA's open kernel modules (os-hypervisor.c, kernel_vgpu_mgr.c), its vgpu-vfio layer as published, and its
vGPU user guide 17.6. In the default mode all vGPUs of a GPU have one framebuffer size.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from mdevfs.vendor import (
    U32,
    U64,
    Bytes,
    DeviceModel,
    InputError,
    KernelError,
    Mdev,
    MdevType,
    Page,
    Parent,
    PciIdentity,
    Refused,
    SriovCapability,
    Str,
    Struct,
    Type,
    VendorDriver,
    VMState,
    show,
    store,
)
from mdevfs.vendor import Settings as Base
from vendor_drivers._nvidia_types import BOARDS, PROFILES, Board, Profile

RELEASE = "550.163.02"
MAX_PARAMS = 1024  # bytes of one write, its last one included (VGPU_CONFIG_PARAMS_MAX_LENGTH)
CHANNEL = VMState(
    "nvidia-vgpu-channel",
    fields=[U64("base", doc="of its ring of commands"), U32("get"), U32("put"), U32("engine"), U32("priority")],
)


class Nvidia(VendorDriver):
    """A GPU shared by vGPUs of one framebuffer size; on an A16 each of them takes a VF."""

    api = 1
    name = "nvidia"
    bus = "pci"
    mdev_driver = "nvidia-vgpu-vfio"
    mdev_driver_since = "5.14"  # where the kernel lets it: its layer asks for mdev_parent_ops.device_driver

    variants = ({"driver_release": "535.161.05"}, {}, {"board": "A16"})

    # NVIDIA's own check is not public: this is ours. Its guide asks for the same GPU and the same type, also where two
    # types have one framebuffer size; which releases load each other's state is not said, so they must be equal.
    model = DeviceModel(
        "nvidia.com/vgpu",
        params=[
            Str("board", BOARDS["T4"].pci_id, doc="PCI vendor and device id of the GPU", fixed=True),
            Str("type", "nvidia-222", doc="vGPU type", fixed=True),
            Str("release", RELEASE, doc="of the vGPU manager", fixed=True),
        ],
    )

    # Real state is the whole framebuffer, and more that NVIDIA does not tell; these are its first pages.
    state = VMState(
        "nvidia-vgpu",
        fields=[
            Bytes("framebuffer", 64 << 10, doc="its first 16 pages"),
            Struct("channels", of=CHANNEL, num=8),
            U64("display", num=4, doc="what each head shows"),
        ],
    )

    class Settings(Base):
        board: Literal["T4", "A16"] = Field(default="T4", description="T4: the GPU is the parent; A16: its VFs are")
        driver_release: str = Field(
            default=RELEASE,
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
        board, release = _board(parent), _settings(parent).driver_release
        return [
            MdevType(
                str(number),
                name=f"{board.prefix}-{suffix}",
                description=PROFILES[suffix].description,
                params={"board": board.pci_id, "type": f"{self.name}-{number}", "release": release},
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
        """Plug-in parameters, kept as they are written."""
        return _params(mdev) + b"\n"

    @store("nvidia/vgpu_params")
    def set_vgpu_params(self, mdev: Mdev, data: bytes) -> None:
        """Replaces all; nothing is parsed. The last byte, meant for the newline, is dropped whatever it is: a write
        without one loses a character. E2BIG beyond the limit, EPERM while the device is in use."""
        if len(data) > MAX_PARAMS:
            raise KernelError(errno.E2BIG)
        if mdev.in_use:
            raise KernelError(errno.EPERM)
        # Ours: a byte alone, which is no parameter, would leave nothing; it stays, for who tries the file out.
        kept = data[:-1] or data.strip()
        mdev.data = kept.partition(b"\0")[0]

    @show("nvidia/vm_name")
    def vm_name(self, mdev: Mdev) -> str:
        """The VM that has it open: none here, so a newline alone."""
        return "\n"

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
