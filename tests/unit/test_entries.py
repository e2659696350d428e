"""What directories are made of: relative links, folders of names with slashes, overlays."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevfs.sysfs.entries import Attribute, Directory, Folder, Overlay, nest, relative
from mdevfs.sysfs.tree import Tree
from tests.support import check_tree


def text(value: str = "") -> Attribute:
    return Attribute(lambda: value)


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=5)


@given(NAMES, NAMES)
def test_relative_links_lead_there_by_the_targets_own_name(here: list[str], there: list[str]) -> None:
    link = relative("/".join(here), "/".join(there))
    assert posixpath.normpath(posixpath.join("/", *here, link)) == "/" + "/".join(there)
    assert link.endswith(there[-1])
    assert not link.startswith("/")
    ups = link.split("/").count("..")
    assert ups <= len(here)
    assert here[: len(here) - ups] == there[: len(here) - ups]


@pytest.mark.parametrize(
    ("here", "there", "link"),
    [
        ("class/mdev_bus", "devices/virtual/mtty/mtty", "../../devices/virtual/mtty/mtty"),
        (
            "devices/virtual/mtty/mtty/U",
            "devices/virtual/mtty/mtty/mdev_supported_types/t",
            "../mdev_supported_types/t",
        ),
        ("devices/a/U/vfio-dev/vfio0", "devices/a/U", "../../../U"),
        ("a", "a", "../a"),
    ],
)
def test_relative_links_as_the_kernel_lays_them(here: str, there: str, link: str) -> None:
    assert relative(here, there) == link


def test_folders_of_names_with_slashes() -> None:
    flat = {"a": text("1"), "x/b": text("2"), "x/y/c": text("3"), "x/y/d": text("4")}
    tree = Tree(Folder(nest(flat)))
    assert {path for path, entry in tree.everything() if not isinstance(entry, Directory)} == set(flat)
    assert tree.walk("x").links() == 3
    check_tree(tree)


def test_an_overlay_shows_each_part() -> None:
    one, two = Folder({"a": Folder(), "b": text()}), Folder({"c": Folder()})
    overlay = Overlay(one, two, salt=5)
    tree = Tree(Folder({"o": overlay}))
    assert {name for _, name, _, _ in tree.list(tree.walk("o"))} == {"a", "b", "c"}
    assert tree.walk("o").links() == 4
    assert tree.walk("o/c").parent is tree.walk("o")
    check_tree(tree)
