"""Numbers and words as the kernel reads them (lib/kstrtox.c)."""

from __future__ import annotations

import contextlib
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevfs.errors import KernelError
from mdevfs.sysfs.parse import kstrtobool, kstrtoull, word

LIMIT = 2**64 - 1
FORMS = ("%d", "%#x", "+%d", "+%#x", "0%o", "+0%o", "%d\n", "%#X\n", "0%o\n", "%#x\0junk", "%d\n\0")


@given(st.integers(0, LIMIT), st.sampled_from(FORMS))
def test_every_way_to_write_a_number(number: int, form: str) -> None:
    assert kstrtoull((form % number).encode()) == number


@given(st.integers(LIMIT + 1, 1 << 80), st.sampled_from(FORMS))
def test_too_large(number: int, form: str) -> None:
    with pytest.raises(KernelError) as caught:
        kstrtoull((form % number).encode())
    assert caught.value.errno == errno.ERANGE


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_callers_limit(number: int, limit: int) -> None:
    if number <= limit:
        assert kstrtoull(b"%d" % number, limit) == number
    else:
        with pytest.raises(KernelError) as caught:
            kstrtoull(b"%d" % number, limit)
        assert caught.value.errno == errno.ERANGE


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", "+", "-1", "-0", "++1", " 1", "1 ", "1\n\n", "1\nx", "08", "0x", "0x\n", "0xg", "1.0"),
        *("1_0", "x1", "\0", "\u0661"),
    ],
)
def test_no_number(text: str) -> None:
    with pytest.raises(KernelError) as caught:
        kstrtoull(text.encode())
    assert caught.value.errno == errno.EINVAL


@given(st.binary(max_size=8))
def test_a_number_or_one_of_two_errnos(data: bytes) -> None:
    text = data.partition(b"\0")[0].removesuffix(b"\n").removeprefix(b"+").lower()
    base = 16 if text.startswith(b"0x") else 8 if text.startswith(b"0") else 10
    if text.isalnum() and text.isascii():
        with contextlib.suppress(ValueError):
            number = int(text, base)
            assert kstrtoull(data) == number
            return
    with pytest.raises(KernelError) as caught:
        kstrtoull(data)
    assert caught.value.errno in (errno.EINVAL, errno.ERANGE)


@given(st.sampled_from(["y", "Y", "t", "T", "1", "on", "On", "oN", "ON"]), st.binary())
def test_true(head: str, rest: bytes) -> None:
    assert kstrtobool(head.encode() + rest) is True


@given(st.sampled_from(["n", "N", "f", "F", "0", "of", "OF", "oFf", "off"]), st.binary())
def test_false(head: str, rest: bytes) -> None:
    assert kstrtobool(head.encode() + rest) is False


@given(st.binary())
def test_neither(data: bytes) -> None:
    known = data[:1] in b"yYtT1nNfF0" if data[:1] else False
    if known or data[:2].lower() in (b"on", b"of"):
        assert kstrtobool(data) in (True, False)
    else:
        with pytest.raises(KernelError) as caught:
            kstrtobool(data)
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"auto", "auto"),
        (b"auto\n", "auto"),
        (b"auto\n\n", "auto\n"),
        (b"auto\0junk", "auto"),
        (b"\xff", "ÿ"),
        (b"", ""),
    ],
)
def test_word(data: bytes, seen: str) -> None:
    assert word(data) == seen
