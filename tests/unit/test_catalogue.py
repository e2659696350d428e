"""The catalogue: every page is whole; every refusal has a code, every code a page, every page a test."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen

import mdevfs
import vendor_drivers
from mdevfs.cli.main import COMMANDS
from mdevfs.errors import InputError
from mdevfs.migration import catalogue
from mdevfs.migration.catalogue import CODE, Page, load, merge
from mdevfs.vendor import loader

PAGES = load()
ROOM = Path(mdevfs.__file__).parent
DRIVERS = Path(vendor_drivers.__file__).parent
TESTS = Path(__file__).parents[1]
REFUSALS = ("Reason", "Refused", "BadState", "finding")
# What passes on a code that somebody else gave: the constructor, and the client's reading of a verdict.
PASSED_ON = {
    ("mdevfs/migration/verdict.py", "__init__"),
    ("mdevfs/migration/verdict.py", "_state_reason"),
    ("mdevfs/client/answer.py", "parse_reason"),
}


def page(code: str = "acme-clock", **changes: str) -> Page:
    whole = {"title": "t", "what": "w", "example": "e", "side": "both", "mend": "m", "source": "s"}
    return Page(code, **(whole | changes))


@cache
def every_page() -> dict[str, Page]:
    """The built-in pages and the shipped drivers'."""
    return merge(loader.pages())


@pytest.mark.parametrize("code", PAGES)
def test_a_page_is_whole(code: str) -> None:
    found = PAGES[code]
    assert found.code == code
    assert all((found.title, found.what, found.example, found.mend, found.source))
    assert not found.title.endswith(".")
    for text in (found.what, found.example, found.mend):
        assert len(text.splitlines()) <= 5
        assert max(map(len, text.splitlines())) <= 120


def test_a_code_stands_in_one_file() -> None:
    tables = [tomllib.loads(path.read_text()) for path in catalogue.BUILT_IN]
    assert sum(map(len, tables)) == len(PAGES)


@pytest.mark.parametrize("code", every_page())
def test_a_page_names_commands_and_codes_that_exist(code: str) -> None:
    found = every_page()[code]
    text = " ".join((found.what, found.example, found.mend, found.source))
    assert set(re.findall(r"\bmdevfs ([a-z-]+) [A-Za-z-]", text)) <= set(COMMANDS)
    assert set(re.findall(r"\bmdevfs explain ([a-z-]+)", text)) <= every_page().keys()


# -- every refusal has a code


@frozen
class Refusal:
    """One place in the code that says no: the codes that it can say, none where that is not to be seen."""

    where: str
    codes: frozenset[str]


def sources() -> Iterator[Path]:
    yield from sorted(ROOM.rglob("*.py"))
    yield from sorted(DRIVERS.rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.AST, ast.Call]]:
    """Every call that makes a reason, with the innermost function that it is in."""

    def walk(node: ast.AST, name: str, inside: ast.AST) -> Iterator[tuple[str, ast.AST, ast.Call]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name, inside = node.name, node
        if isinstance(node, ast.Call) and called(node) in REFUSALS:
            yield name, inside, node
        for child in ast.iter_child_nodes(node):
            yield from walk(child, name, inside)

    yield from walk(tree, name, tree)


def called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def code_of(call: ast.Call) -> ast.expr | None:
    by_name = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
    return next(iter([*call.args[:1], *by_name]), None)


def codes_said(code: ast.expr | None, inside: ast.AST, known: frozenset[str]) -> frozenset[str]:
    """A literal; or what a table of the same function holds; or the pages that a formatted code can mean."""
    if isinstance(code, ast.Constant) and isinstance(code.value, str):
        return frozenset({code.value})
    if isinstance(code, ast.IfExp):
        return codes_said(code.body, inside, known) | codes_said(code.orelse, inside, known)
    if isinstance(code, ast.Name):
        texts = {node.value for node in ast.walk(inside) if isinstance(node, ast.Constant)}
        return frozenset(text for text in texts if isinstance(text, str) and text in known)
    if isinstance(code, ast.JoinedStr):
        parts = [re.escape(str(one.value)) if isinstance(one, ast.Constant) else "[a-z0-9-]+" for one in code.values]
        return frozenset(one for one in known if re.fullmatch("".join(parts), one))
    return frozenset()


def refusals(path: Path, known: frozenset[str]) -> Iterator[Refusal]:
    where = path.relative_to(ROOM.parent).as_posix()
    for name, inside, call in functions(parsed(path)):
        if (where, name) not in PASSED_ON:
            yield Refusal(f"{where}:{call.lineno} in {name}", codes_said(code_of(call), inside, known))


def all_refusals() -> list[Refusal]:
    known = frozenset(every_page())
    return [one for path in sources() for one in refusals(path, known)]


def test_the_walk_finds_refusals() -> None:
    found = all_refusals()
    assert len(found) > 40
    said = frozenset[str]().union(*(one.codes for one in found))
    assert {"types-differ", "uuid-malformed", "value-differs", "blocked", "vfio-ap-no-such-domain"} <= said


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ('Reason("a-b", "rule")', {"a-b"}),
        ('Refused(code="never-seen", rule="r")', {"never-seen"}),
        ('verdict.Reason("a-b", "rule")', {"a-b"}),
        ("Reason(make_code(), 'rule')", set()),
        ("Reason()", set()),
        ("def f():\n for code in ('known-one', 'other'):\n  Reason(code, 'rule')", {"known-one"}),
        ("def f(code):\n Reason(code, 'rule')", set()),
        ("Refused(f'known-{what}', rule='r')", {"known-one", "known-two"}),
        ("BadState('a-b' if new else 'a-c', rule='r')", {"a-b", "a-c"}),
    ],
)
def test_what_the_walk_sees(text: str, codes: set[str]) -> None:
    known = frozenset({"known-one", "known-two"})
    ((_, inside, call),) = functions(ast.parse(text))
    assert codes_said(code_of(call), inside, known) == codes


def test_every_refusal_has_a_code() -> None:
    assert [one.where for one in all_refusals() if not one.codes] == []


def test_every_code_has_a_page() -> None:
    pages = every_page()
    missing = [(code, one.where) for one in all_refusals() for code in sorted(one.codes - pages.keys())]
    assert missing == []


def test_every_page_has_a_code() -> None:
    said = frozenset[str]().union(*(one.codes for one in all_refusals()))
    assert every_page().keys() - said == set()


def test_no_bare_errno_where_somebody_could_be_told_why() -> None:
    """A bare errno is right only where the kernel itself says no more: not in the handshake, not in models."""
    for path in [*(ROOM / "migration").glob("*.py"), ROOM / "mdev/models.py", *(ROOM / "vendor").glob("*.py")]:
        raised = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Raise)]
        bare = [one.lineno for one in raised if isinstance(one.exc, ast.Call) and called(one.exc) == "KernelError"]
        assert bare == [], path


# -- every page has a test


def expectations(tree: ast.AST) -> Iterator[ast.AST]:
    """What a test expects: assertions, the tables that they are made of, what raises must match."""
    for node in ast.walk(tree):
        is_case = isinstance(node, ast.Call) and called(node) in ("raises", "Case")
        if is_case or isinstance(node, ast.Assert | ast.Tuple | ast.List | ast.Set | ast.Dict):
            yield node


def codes_tested() -> set[str]:
    """The codes that a test other than this one expects."""
    found = set()
    for path in sorted(TESTS.rglob("test_*.py")):
        if path == Path(__file__):
            continue
        for expected in expectations(parsed(path)):
            texts = [one.value for one in ast.walk(expected) if isinstance(one, ast.Constant)]
            found |= {text for text in texts if isinstance(text, str) and CODE.match(text)}
    return found


def test_every_page_has_a_test() -> None:
    assert sorted(every_page().keys() - codes_tested()) == []


# -- pages of drivers


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
