"""vfio_ccw: I/O subchannels for guests (drivers/s390/cio/vfio_ccw_drv.c, vfio_ccw_ops.c)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mdevfs.vendor import MdevType, SubchannelIdentity, VendorDriver
from mdevfs.vendor import Settings as Base

Byte = Annotated[int, Field(ge=0, le=0xFF)]


class VfioCcw(VendorDriver):
    """A subchannel with one mdev: the whole device behind it."""

    api = 1
    name = "vfio_ccw"
    bus = "css"
    mdev_driver = "vfio_ccw_mdev"
    max_instances = 1
    types = [MdevType("io", name="I/O subchannel (Non-QDIO)", device_api="vfio-ccw")]

    class Settings(Base):
        dev_busid: str | None = Field(default=None, description="the device behind it, such as 0.0.1234")
        chpids: list[Byte] = Field(default=[], max_length=8, description="ids of its channel paths")
        pim: Byte | None = Field(default=None, description="mask of the installed paths, all of chpids unless given")
        pam: Byte | None = Field(default=None, description="mask of the available paths, pim unless given")
        pom: Byte = Field(default=0xFF, description="mask of the operational paths")
        qdio: bool = Field(default=False, description="one of QDIO's: vfio_ccw refuses to bind it")

    def subchannel(self, settings: Settings) -> SubchannelIdentity:
        """As described."""
        return SubchannelIdentity(
            tuple(settings.chpids), settings.pim, settings.pam, settings.pom, settings.dev_busid, settings.qdio
        )
