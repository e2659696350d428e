"""Any device model, and devices of it: what hypothesis draws for the tests of models."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from hypothesis import strategies as st

from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Bool, Int, Parameter, Set, Str, Value


@frozen
class Configured:
    """A model, and values that a device of it could have."""

    model: DeviceModel
    values: Mapping[str, Value]


WORDS = st.text(min_size=1, max_size=5)
SORTS: dict[type[Parameter], st.SearchStrategy[Value]] = {
    Int: st.integers(-(10**19), 10**19),
    Bool: st.booleans(),
    Str: st.text(max_size=6),
    Set: st.frozensets(WORDS, max_size=3),
}
EXACT = (Int, Bool, Str)
NAMES = st.text("abc-_.0", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))


@st.composite
def parameters(
    draw: st.DrawFn, name: str, sorts: tuple[type[Parameter], ...] = tuple(SORTS)
) -> tuple[Parameter, Value]:
    """A possible parameter, and one of its values."""
    sort = draw(st.sampled_from(sorts))
    pool = draw(st.lists(SORTS[sort], min_size=1, max_size=4, unique=True))
    words = sorted({word for value in pool if isinstance(value, frozenset) for word in value})
    allowed = draw(st.none() | st.just(words if sort is Set else pool))
    off = draw(st.none() | st.sampled_from(pool))
    made = sort(name, draw(st.sampled_from(pool)), off, allowed, state_only=draw(st.booleans()))
    return made, draw(st.sampled_from(pool))


@st.composite
def configured(draw: st.DrawFn, sorts: tuple[type[Parameter], ...] = tuple(SORTS)) -> Configured:
    drawn = [draw(parameters(name, sorts)) for name in draw(st.lists(NAMES, max_size=5, unique=True))]
    name = draw(st.sampled_from(["a.b/c", "vendor-a.com/my-nic", "x/y/z"]))
    return Configured(DeviceModel(name, [one for one, _ in drawn]), {one.name: value for one, value in drawn})


def other_values(one: Configured, data: st.DataObject) -> dict[str, Value]:
    """Values of another device of the model, some as those of `one`."""
    return {param.name: data.draw(st.sampled_from([param.init, one.values[param.name]])) for param in one.model.params}
