"""Nodes: their life between look-up and forget, what they remember, what changes do to them; listings; links."""

from __future__ import annotations

import errno
import stat

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from mdevfs.errors import KernelError
from mdevfs.sysfs.entries import Attribute, Folder, Link
from mdevfs.sysfs.node import Node
from mdevfs.sysfs.order import name_hash
from mdevfs.sysfs.tree import MANY, Tree
from tests.support import check_tree


def text(value: str = "") -> Attribute:
    return Attribute(lambda: value)


@frozen
class Place:
    """Where a link leads."""

    path: str


def link(name: str, salt: int = 0) -> Link:
    """A link in `top` to a neighbour."""
    return Link("top", Place(f"top/{name}"), salt)


def small() -> tuple[Tree, Folder]:
    """`top/{file,link,sub/{deep}}`; returns the tree and the content of `top`."""
    top = Folder({"file": text(), "link": link("sub", 1), "sub": Folder({"deep": text()}, salt=2)}, salt=3)
    return Tree(Folder({"top": top})), top


def look_up(tree: Tree, path: str) -> Node:
    """As the kernel does: every name on the way is looked up, and held."""
    node = tree.root
    for name in path.split("/"):
        node = tree.child(node, name)
        node.lookups += 1
    return node


def forget(tree: Tree, node: Node) -> None:
    """As the kernel does, from below."""
    while node.parent is not None:
        above = node.parent
        tree.forget(node.inode, 1)
        node = above


def names(tree: Tree) -> set[str]:
    return {tree.node(inode).path for inode in list(tree.nodes)}


# -- look-up and forget


def test_a_node_lives_from_look_up_to_forget() -> None:
    tree, _ = small()
    node = look_up(tree, "top/sub/deep")
    assert look_up(tree, "top/sub/deep") is node
    assert names(tree) == {"", "top", "top/sub", "top/sub/deep"}
    check_tree(tree)
    forget(tree, node)
    assert names(tree) == {"", "top", "top/sub", "top/sub/deep"}
    forget(tree, node)
    assert names(tree) == {""}


def test_a_parent_stays_for_its_children() -> None:
    tree, _ = small()
    node = look_up(tree, "top/sub")
    below = tree.child(node, "deep")
    below.lookups += 1
    forget(tree, node)
    assert names(tree) == {"", "top", "top/sub", "top/sub/deep"}
    assert below.path == "top/sub/deep"
    tree.forget(below.inode, 1)
    assert names(tree) == {""}


def test_forgetting_the_root_or_a_stranger_does_nothing() -> None:
    tree, _ = small()
    tree.forget(tree.root.inode, 1000)
    tree.forget(123456789, 1)
    assert names(tree) == {""}
    assert look_up(tree, "top").path == "top"


@pytest.mark.parametrize(
    ("path", "code"), [("no", errno.ENOENT), ("top/no", errno.ENOENT), ("top/file/x", errno.ENOTDIR)]
)
def test_names_that_are_not_there(path: str, code: int) -> None:
    tree, _ = small()
    with pytest.raises(KernelError) as caught:
        tree.walk(path)
    assert caught.value.errno == code
    tree.trim()
    assert names(tree) == {""}


def test_walking_follows_links_and_dots() -> None:
    tree, top = small()
    assert tree.walk("top/link/deep").path == "top/sub/deep"
    assert tree.walk("top/./sub/../file").path == "top/file"
    assert tree.walk("../top").path == "top"
    assert tree.walk("top/link", follow=False).path == "top/link"
    assert tree.walk("") is tree.root
    top.entries["link"] = link("link")
    tree.refresh("top")
    with pytest.raises(KernelError) as caught:
        tree.walk("top/link")
    assert caught.value.errno == errno.ELOOP


def test_walk_leaves_nothing_behind_once_trimmed() -> None:
    tree, _ = small()
    tree.walk("top/link/deep")
    assert len(names(tree)) > 1
    tree.trim()
    assert names(tree) == {""}


# -- memory


def test_memory_pins_a_node() -> None:
    tree, _ = small()
    node = look_up(tree, "top/sub/deep")
    tree.remember(node).mode = stat.S_IFREG | 0o600
    forget(tree, node)
    assert tree.known("top/sub/deep") is node
    assert look_up(tree, "top/sub/deep").permissions == stat.S_IFREG | 0o600
    check_tree(tree)


def test_memory_dies_with_the_name() -> None:
    tree, top = small()
    node = look_up(tree, "top/file")
    tree.remember(node).mode = stat.S_IFREG | 0o600
    forget(tree, node)
    top.entries["file"] = text()
    tree.changed("top", "file")
    assert node.inode not in tree.nodes
    fresh = tree.walk("top/file")
    assert fresh is not node
    assert fresh.permissions == stat.S_IFREG | 0o444
    check_tree(tree)


def test_memory_of_a_dead_node_does_not_pin_it() -> None:
    tree, top = small()
    node = look_up(tree, "top/sub")
    tree.remember(node)
    del top.entries["sub"], top.entries["link"]
    tree.changed("top", "sub", "link")
    assert node.dead
    assert tree.nodes[node.inode] is node
    check_tree(tree)
    forget(tree, node)
    assert names(tree) == {""}


def test_times_move_below_a_remembered_directory_only() -> None:
    tree, top = small()
    remembered, plain = look_up(tree, "top"), look_up(tree, "top/sub")
    memory = tree.remember(remembered)
    memory.mtime = memory.ctime = 0
    top.entries["new"] = text()
    tree.changed("top", "new")
    assert memory.mtime == memory.ctime > 0
    assert memory.atime == remembered.loaded
    assert plain.memory is None


# -- changes


def test_a_name_that_goes_takes_everything_below_with_it() -> None:
    tree, top = small()
    deep, other = look_up(tree, "top/sub/deep"), look_up(tree, "top/file")
    sub = deep.parent
    assert sub is not None
    del top.entries["sub"], top.entries["link"]
    tree.changed("top", "sub", "link")
    assert (deep.dead, sub.dead, other.dead) == (True, True, False)
    assert sub.links() == 2
    assert tree.list(sub) == []
    with pytest.raises(KernelError) as caught:
        tree.child(sub, "deep")
    assert caught.value.errno == errno.ENOENT
    assert tree.stale == [(other.parent.inode, "sub")]  # type: ignore[union-attr]
    check_tree(tree)
    forget(tree, deep)
    forget(tree, other)
    assert names(tree) == {""}


def test_a_name_that_comes_back_has_another_inode() -> None:
    tree, top = small()
    old = look_up(tree, "top/sub/deep")
    tree.changed("top", "sub")
    new = look_up(tree, "top/sub/deep")
    assert old.dead
    assert not new.dead
    assert old.inode != new.inode
    assert tree.nodes[old.inode] is old
    tree.forget(old.inode, 1)
    assert tree.known("top/sub/deep") is new
    assert top.entries["sub"].salt == 2
    check_tree(tree)


def test_changes_that_nobody_knows_of_tell_nobody() -> None:
    tree, top = small()
    before = tree.generation
    top.entries["new"] = text()
    tree.changed("top", "new")
    tree.refresh("top")
    tree.notify("top/file")
    assert (tree.stale, tree.touched) == ([], set())
    assert tree.generation == before + 2


def test_touched_are_the_directories_that_changed() -> None:
    tree, top = small()
    node = look_up(tree, "top/sub")
    top.entries["new"] = text()
    tree.changed("top", "new")
    assert node.parent is not None
    assert tree.touched == {node.parent.inode}
    assert tree.stale == []


def test_changed_links_touch_only_who_remembers() -> None:
    tree, top = small()
    node = look_up(tree, "top")
    top.entries["more"] = link("sub")
    tree.changed("top", "more", links=True)
    assert tree.touched == set()
    tree.remember(node)
    tree.changed("top", "more", links=True)
    assert tree.touched == {node.inode}


def test_refresh_kills_what_differs_and_keeps_the_rest() -> None:
    tree, top = small()
    top.entries |= {"mode": text(), "going": text(), "again": Folder(salt=7), "turned": link("sub", 1), "to": text()}
    nodes = {name: look_up(tree, f"top/{name}") for name in (*top.entries, "sub/deep")}
    before = {name: node.inode for name, node in nodes.items()}
    del top.entries["going"]
    top.entries |= {
        "mode": Attribute(lambda: "", mode=0o400),
        "again": Folder(salt=8),
        "turned": link("again", 1),
        "to": link("sub"),
        "file": text("new"),
        "sub": Folder({"deep": text("new")}, salt=2),
    }
    tree.refresh("top")
    died = {"mode", "going", "again", "turned", "to"}
    assert {name for name, node in nodes.items() if node.dead} == died
    parent = nodes["file"].parent
    assert parent is not None
    assert sorted(tree.stale) == sorted((parent.inode, name) for name in died)
    assert {parent.inode, nodes["sub"].inode} <= tree.touched
    assert {name: node.inode for name, node in nodes.items()} == before
    check_tree(tree)


async def test_refresh_shows_the_new_content() -> None:
    tree, top = small()
    node = look_up(tree, "top/sub/deep")
    top.entries["sub"] = Folder({"deep": text("new"), "more": text()}, salt=2)
    tree.refresh("top")
    assert not node.dead
    assert await (await tree.open(node, 0)).read(0, 10) == b"new"
    assert {name for _, name, _, _ in tree.list(tree.walk("top/sub"))} == {"deep", "more"}
    check_tree(tree)


# -- listings


SOME_NAMES = st.sets(st.text("abc0123456789-", min_size=1, max_size=9))


@given(SOME_NAMES, SOME_NAMES)
def test_positions_are_stable_while_names_come_and_go(some: set[str], others: set[str]) -> None:
    folder = Folder({name: text() for name in some})
    tree = Tree(folder)
    before = {name: position for position, name, _, _ in tree.list(tree.root)}
    folder.entries = {name: text() for name in sorted(others)}
    listed = tree.list(tree.root)
    after = {name: position for position, name, _, _ in listed}
    assert all(after[name] == before[name] for name in some & others)
    assert set(after) == others
    positions = [position for position, _, _, _ in listed]
    assert positions == sorted(positions)
    assert all(position >= 3 for position in positions)


def test_a_large_directory_is_listed_whole() -> None:
    folder = Folder({f"n{number}": text() for number in range(MANY + 1)})
    tree = Tree(folder)
    listed = tree.list(tree.root)
    assert [name for _, name, _, _ in listed] == list(folder.entries)
    assert [position for position, _, _, _ in listed] == list(range(3, MANY + 4))


def test_a_listed_name_is_a_node_without_content_yet() -> None:
    asked: list[str] = []

    class Lazy(Folder):
        def lookup(self, name: str) -> Attribute | Folder | Link | None:
            asked.append(name)
            return text()

    tree = Tree(Lazy({"a": text()}))
    [(_, name, mode, salt)] = tree.list(tree.root)
    node = tree.listed(tree.root, name, mode, salt)
    assert tree.listed(tree.root, name, mode, salt) is tree.child(tree.root, "a") is node
    assert asked == []
    assert node.size == 4096
    assert asked == ["a"]


def test_a_name_that_was_only_listed() -> None:
    tree, _ = small()
    above = look_up(tree, "top")
    inode = tree.note(above, "link", 1, 5)
    check_tree(tree)
    forget(tree, above)
    assert inode in tree.nodes
    node = tree.child(above, "link")
    assert node is tree.node(inode) is tree.listed(above, "link", Link.mode, 1)
    assert (node.inode, node.loaded, node.lookups, node.path) == (inode, 5, 1, "top/link")
    check_tree(tree)
    tree.forget(inode, 1)
    assert names(tree) == {""}


def test_a_name_that_was_only_listed_is_forgotten() -> None:
    tree, _ = small()
    above = look_up(tree, "top")
    inode = tree.note(above, "link", 1, 5)
    tree.forget(inode, 0)
    assert inode in tree.nodes
    forget(tree, above)
    tree.forget(inode, 1)
    assert names(tree) == {""}
    with pytest.raises(KernelError) as caught:
        tree.node(inode)
    assert caught.value.errno == errno.ESTALE


def test_a_name_that_was_only_listed_dies() -> None:
    tree, top = small()
    above = look_up(tree, "top")
    top.entries["other"] = link("file", 4)
    inodes = [tree.note(above, "link", 1, 5), tree.note(above, "other", 4, 5)]
    top.entries["link"] = link("sub", 2)
    del top.entries["other"]
    tree.refresh("top")
    assert all(tree.node(inode).dead for inode in inodes)
    assert {name for _, name in tree.stale} == {"link", "other"}
    again = tree.note(above, "link", 2, 6)
    assert again not in inodes
    for inode in (*inodes, again):
        tree.forget(inode, 1)
    forget(tree, above)
    assert names(tree) == {""}


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.:", max_size=40))
def test_name_hash_stays_in_its_range(name: str) -> None:
    assert 2 <= name_hash(name) < 0x7FFFFFFF
