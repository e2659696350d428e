"""mdevfs: a live /sys for mediated devices, and the handshake that the kernel never merged."""

__version__ = "0.1.0"
