"""Types of a registered parent come and go, which no kernel's do: a driver that changed them would register anew."""

from __future__ import annotations

from attrs import evolve

from mdevfs.control.running import Running
from mdevfs.control.verbs import Answer, Verb, unknown
from mdevfs.errors import InputError, escape
from mdevfs.host.host import Host
from mdevfs.mdev.parent import Parent
from mdevfs.mdev.types import MdevType


def find_parent(host: Host, name: str) -> Parent:
    """Raises InputError."""
    parent = host.mdev.parents.get(name)
    if parent is None:
        raise unknown("parent", name, host.mdev.parents)
    return parent


class AddType(Verb):
    """A type that was removed is there again; or a new one, `like` one that its driver has."""

    op = "add-type"
    parent: str
    type: str
    like: str | None = None
    name: str | None = None
    description: str | None = None

    async def carry_out(self, running: Running) -> Answer:
        parent = find_parent(running.host, self.parent)
        spec = self._spec(parent)
        async with running.changing():
            parent.mdev_core.add_type(parent, spec)
        return {"did": f"{self.parent} offers {self.type}"}

    def _spec(self, parent: Parent) -> MdevType:
        prefix = f"{parent.driver.name}-"
        declared = {f"{prefix}{one.suffix}": one for one in parent.driver.types(parent)}
        model = declared.get(self.like or self.type)
        if model is None:
            what = f"type of {parent.driver.name}'s"
            raise InputError(f"{unknown(what, self.like or self.type, declared)}; a new type is `like` one of them")
        suffix = self.type.removeprefix(prefix)
        if suffix == self.type:
            raise InputError(f'type: "{escape(self.type)}" does not begin with {prefix}, as the types of its driver do')
        name = model.name if self.name is None else self.name
        description = model.description if self.description is None else self.description
        return evolve(model, suffix=suffix, name=name, description=description)


class RemoveType(Verb):
    """A type goes. While there are mdevs of it that is refused, or `mdevs` go first."""

    op = "remove-type"
    parent: str
    type: str
    mdevs: bool = False

    async def carry_out(self, running: Running) -> Answer:
        parent = find_parent(running.host, self.parent)
        kind = parent.types.get(self.type)
        if kind is None:
            raise unknown(f"type of {self.parent}", self.type, parent.types)
        async with running.changing():
            if self.mdevs:
                for mdev in [one for one in parent.mdevs if one.type is kind and not one.removing]:
                    await parent.mdev_core.remove(mdev)
            parent.mdev_core.remove_type(kind)
        return {"did": f"{self.parent} no longer offers {self.type}"}
