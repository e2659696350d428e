"""What a declared device model shows under types and mdevs: the families `models` and `compatible_devices`."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from attrs import asdict

from mdevfs.errors import MdevfsError
from mdevfs.mdev.state_entries import refuse_while_moving, state_entries
from mdevfs.migration.arguments import parameter_value
from mdevfs.migration.handshake import verdict_entries
from mdevfs.migration.machine import strictest
from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Parameter, Value
from mdevfs.migration.verdict import Reason, Refused, RefusedVerdict, Verdict, verdict_of
from mdevfs.sysfs.entries import Attribute, Deferred, Entry, WholeFile
from mdevfs.sysfs.parse import word

if TYPE_CHECKING:
    from mdevfs.mdev.driver import VendorHooks
    from mdevfs.mdev.mdev import Mdev
    from mdevfs.mdev.types import Type


def type_entries(kind: Type) -> Mapping[str, Entry]:
    """`migration_info.json` and `migration_compatible_devices`."""
    driver, interfaces = kind.parent.driver, kind.mdev_core.interfaces
    entries: dict[str, Entry] = {}
    if (model := kind.model) is not None and "models" in interfaces:
        machines = driver.machines(kind.parent.settings)
        entries["migration_info.json"] = WholeFile(lambda: json.dumps(info(driver, model, machines), indent=1) + "\n")
    if driver.migrates and "compatible_devices" in interfaces:
        entries["migration_compatible_devices"] = Attribute(lambda: _compatible(kind))
    return entries


def info(driver: VendorHooks, model: DeviceModel | None, machines: Iterable[str]) -> dict[str, object]:
    """RFC v3's object, and beside its parameters versions, other arguments, the tiers of these machine types, the
    strictest of them, and broken releases."""
    if model is None:
        return {"models": {}}
    tiers = {name: driver.tier(name) for name in machines}
    about = model.info()
    if tiers:
        about["tiers"] = {name: tier.promise for name, tier in tiers.items()}
        strict = strictest(tiers.values())
        about["tier"] = strict.promise if strict is not None else None
        about["blockers"] = {name: tier.blocker for name, tier in tiers.items() if tier.blocker}
    if driver.broken:
        about["broken"] = [asdict(one) for one in driver.broken]
    return {"models": {model.name: about}}


def _compatible(kind: Type) -> str:
    devices = kind.parent.driver.compatible_devices(kind)
    return "".join(f"parent id: {parent}\nmdev_type: {type_id}\n" for parent, type_id in devices)


def mdev_entries(mdev: Mdev) -> Mapping[str, Entry]:
    """The folders `migration/` and `mdevfs/`, made when somebody looks into them."""
    model, interfaces, driver = mdev.type.model, mdev.mdev_core.interfaces, mdev.parent.driver
    entries: dict[str, Entry] = {}
    if model is not None and "models" in interfaces:
        entries["migration"] = Deferred(lambda: {param.name: _parameter(mdev, param) for param in model.params})
    own: list[Callable[[], Mapping[str, Entry]]] = []
    if "verdicts" in interfaces:
        own.append(lambda: verdict_entries(mdev, driver.migrates))
    if "state" in interfaces:
        own.append(lambda: state_entries(mdev))
    if own:
        entries["mdevfs"] = Deferred(lambda: {name: entry for make in own for name, entry in make().items()})
    return entries


def _parameter(mdev: Mdev, param: Parameter) -> Attribute:
    def held() -> str:
        return param.format(mdev.params.get(param.name, param.init))

    async def store(data: bytes) -> None:
        text = word(data)
        try:
            async with mdev.parent.configuring:
                await _change(mdev, param, _changed(mdev, param, text, held()))
        except MdevfsError as error:
            mdev.last_verdict = mdev.journal.record("parameter", mdev, f"{param.name}={text}", verdict_of(error))
            raise

    return Attribute(lambda: held() + "\n", store)


async def _change(mdev: Mdev, param: Parameter, value: Value) -> None:
    """Asks the driver, which may have to make room for it, then sets it."""
    if mdev.params.get(param.name, param.init) == value:
        return
    params, model = {**mdev.params, param.name: value}, mdev.type.model
    if model is not None and (wrong := model.too_long(model.initial(params))):
        raise RefusedVerdict(Verdict.no(wrong))
    pending = mdev.parent.driver.configure(mdev, params)
    if pending is not None:
        await pending
    mdev.set_param(param.name, value)
    if not param.state_only:
        mdev.reset_state()  # it is another device now


def _changed(mdev: Mdev, param: Parameter, text: str, held: str) -> Value:
    """What a text makes of a parameter. Raises RefusedVerdict or Refused."""
    value = parameter_value(param, text, held)
    if isinstance(value, Reason):
        raise RefusedVerdict(Verdict.no([value]))
    refuse_while_moving(mdev)
    if mdev.in_use and not param.state_only:
        raise Refused(
            "in-use",
            errno.EBUSY,
            parameter=param.name,
            rule="the device is in use, and the parameter touches more than the state's representation",
            source=text,
            target=held,
            side="target",
            mend="stop using the device first",
        )
    if param.fixed and text != held:
        raise Refused(
            "parameter-fixed",
            errno.EPERM,
            parameter=param.name,
            rule="it is given at creation and not changed later",
            source=text,
            target=held,
            side="target",
            mend=f"create a device with {param.name}={text}",
        )
    return value
