"""The mounts of tests/mount, for the recordings that need one."""

from tests.mount.conftest import make_root, mount, place

__all__ = ["make_root", "mount", "place"]
