"""NVIDIA's boards and the vGPU types of each, as data.

Names, framebuffers and maxima of the Q and B types are in NVIDIA's vGPU user guide (17.6), the form of the description
is in its open kernel modules. T4 ids are those of three real listings; A16 ids, heads, frame rates and resolutions
come from one community table. The maxima of the A types and of A16-C follow from the size alone (not verified).
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from mdevfs.vendor import Bar, PciIdentity, SriovCapability

VENDOR = 0x10DE
MEMORY = 16384  # MB of one GPU: both boards' GPUs have 16 GB
MB, GB = 1 << 20, 1 << 30


@frozen
class Profile:
    """What one vGPU is: `frl` is the limit of frames a second, `framebuffer` counts MB."""

    heads: int
    frl: int
    framebuffer: int
    resolution: str

    @property
    def max_instances(self) -> int:
        """Of one GPU."""
        return MEMORY // self.framebuffer

    @property
    def description(self) -> str:
        """The line of the type's `description`."""
        return (
            f"num_heads={self.heads}, frl_config={self.frl}, framebuffer={self.framebuffer}M, "
            f"max_resolution={self.resolution}, max_instance={self.max_instances}"
        )


PROFILES: Mapping[str, Profile] = {
    # B: virtual PCs
    "1B": Profile(4, 45, 1024, "5120x2880"),
    "1B4": Profile(4, 45, 1024, "5120x2880"),
    "2B": Profile(4, 45, 2048, "5120x2880"),
    "2B4": Profile(4, 45, 2048, "5120x2880"),
    # A: virtual applications
    "1A": Profile(1, 60, 1024, "1280x1024"),
    "2A": Profile(1, 60, 2048, "1280x1024"),
    "4A": Profile(1, 60, 4096, "1280x1024"),
    "8A": Profile(1, 60, 8192, "1280x1024"),
    "16A": Profile(1, 60, 16384, "1280x1024"),
    # Q: virtual workstations
    "1Q": Profile(4, 60, 1024, "5120x2880"),
    "2Q": Profile(4, 60, 2048, "7680x4320"),
    "4Q": Profile(4, 60, 4096, "7680x4320"),
    "8Q": Profile(4, 60, 8192, "7680x4320"),
    "16Q": Profile(4, 60, 16384, "7680x4320"),
    # C: computing; newer drivers say 4096x2400 (from which release on is not verified)
    "4C": Profile(1, 60, 4096, "4096x2160"),
    "8C": Profile(1, 60, 8192, "4096x2160"),
    "16C": Profile(1, 60, 16384, "4096x2160"),
}


@frozen
class Board:
    """A GPU: `ids` are its vGPU types by their suffix; `vf_bars` the VFs' registers, none where the GPU itself is the
    parent."""

    title: str
    prefix: str
    device: int
    subsystem: int
    bars: tuple[Bar, ...]
    ids: Mapping[str, int]
    vf_bars: tuple[Bar, ...] = ()

    @property
    def on_vfs(self) -> bool:
        """Whether its VFs are the parents, with one vGPU each."""
        return bool(self.vf_bars)

    @property
    def pci_id(self) -> str:
        """As lspci prints it."""
        return f"{VENDOR:04x}:{self.device:04x}"

    def identity(self) -> PciIdentity:
        """A 3D controller: neither board has a display output."""
        return PciIdentity(VENDOR, self.device, 0x030200, 0xA1, VENDOR, self.subsystem, bars=self.bars, irq=16)

    def sriov(self, total: int) -> SriovCapability:
        """VFs as an A40 has them, whose virtfn0 is function 4; for the A16 not verified."""
        return SriovCapability(total, offset=4, stride=1, vf_device=self.device, vf_bars=self.vf_bars)


# Ids: NVIDIA's list of supported products. Sizes of the registers: usual for such a GPU (not verified).
_VF_BARS = (Bar(256 << 10), Bar(2 * GB, prefetchable=True, bits64=True), Bar(32 * MB, prefetchable=True, bits64=True))

BOARDS: Mapping[str, Board] = {
    "T4": Board(
        "Tesla T4",
        "GRID T4",
        0x1EB8,
        0x12A2,
        (Bar(16 * MB), Bar(256 * MB, prefetchable=True, bits64=True), Bar(32 * MB, prefetchable=True, bits64=True)),
        {
            "1B": 222, "2B": 223, "2B4": 224, "1A": 225, "2A": 226, "4A": 227, "8A": 228, "16A": 229,
            "1Q": 230, "2Q": 231, "4Q": 232, "8Q": 233, "16Q": 234, "1B4": 252, "4C": 319, "8C": 320, "16C": 321,
        },
    ),
    "A16": Board(
        "A16",
        "NVIDIA A16",
        0x25B6,
        0x14A9,
        (Bar(16 * MB), Bar(16 * GB, prefetchable=True, bits64=True), Bar(32 * MB, prefetchable=True, bits64=True)),
        {
            "1B": 709, "2B": 710, "1Q": 711, "2Q": 712, "4Q": 713, "8Q": 714, "16Q": 715, "1A": 716,
            "2A": 717, "4A": 718, "8A": 719, "16A": 720, "4C": 721, "8C": 722, "16C": 723,
        },
        _VF_BARS,
    ),
}  # fmt: skip
