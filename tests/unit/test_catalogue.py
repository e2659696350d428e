"""The catalogue: every page is whole, and every code that the rooms refuse with has one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mdevfs
from mdevfs.errors import InputError
from mdevfs.migration.catalogue import Page, load, merge

PAGES = load()
SOURCES = sorted(Path(mdevfs.__file__).parent.rglob("*.py"))


def page(code: str = "acme-clock", **changes: str) -> Page:
    whole = {"title": "t", "what": "w", "example": "e", "side": "both", "mend": "m", "source": "s"}
    return Page(code, **(whole | changes))


@pytest.mark.parametrize("code", PAGES)
def test_a_page_is_whole(code: str) -> None:
    found = PAGES[code]
    assert found.code == code
    assert all((found.title, found.what, found.example, found.mend, found.source))
    assert not found.title.endswith(".")
    for text in (found.what, found.example, found.mend):
        assert len(text.splitlines()) <= 5
        assert max(map(len, text.splitlines())) <= 120


def codes_in(path: Path) -> set[str]:
    """The codes that a file gives as literals to Reason, Refused and their like."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Reason", "Refused"):
            given = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
            found |= {one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found


def test_every_code_of_the_rooms_has_a_page() -> None:
    used = set().union(*map(codes_in, SOURCES))
    assert {"types-differ", "uuid-malformed", "value-differs"} <= used
    assert used - PAGES.keys() == set()


def test_drivers_pages_join_the_built_in_ones() -> None:
    merged = merge([page(), page()])
    assert merged == PAGES | {"acme-clock": page()}


def test_two_pages_for_one_code_are_a_mistake() -> None:
    with pytest.raises(InputError) as caught:
        merge([page(), page(title="other"), page("refused")])
    assert [mistake.split()[3] for mistake in caught.value.mistakes] == ["acme-clock", "refused"]


@pytest.mark.parametrize("code", ["", "Refused", "a_b", "a--b", "-a", "a-", "1a", "a b", "a\n"])
def test_a_code_is_lower_case_words(code: str) -> None:
    with pytest.raises(ValueError, match="code"):
        page(code)


def test_a_side_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="side"):
        page(side="nobody")
