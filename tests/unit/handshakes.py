"""Two hosts and one handshake, for the tables of the drivers' tests: (source, target, expected codes)."""

from __future__ import annotations

import errno
import json

from attrs import frozen

from mdevfs.host.host import Host
from tests.support import InProcess, check_tree, host_of

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"


@frozen
class End:
    """A host with one mdev; `path` is the mdev's, `string` what it says, without the newline."""

    host: Host
    client: InProcess
    path: str
    string: str


async def end(text: str, type_id: str, arguments: str = "", parent: int = 0) -> End:
    """A host of this host.toml with one mdev on the n-th of its parents, made with these arguments."""
    host = await host_of(text)
    client = InProcess(host.tree)
    where = f"class/mdev_bus/{client.list('class/mdev_bus')[parent]}/mdev_supported_types/{type_id}"
    await client.write(f"{where}/create", f"{UUID},{arguments}" if arguments else UUID)
    path = f"bus/mdev/devices/{UUID}"
    check_tree(host.tree)
    return End(host, client, path, (await client.read(f"{path}/migration_version")).removesuffix("\n"))


async def answer(target: End, string: str) -> list[str]:
    """The codes of the verdict on a handshake; a refusal is EINVAL, and nothing changes."""
    answered = 0
    try:
        await target.client.write(f"{target.path}/migration_version", string)
    except OSError as error:
        answered = error.errno or 0
    verdict = json.loads(await target.client.read(f"{target.path}/mdevfs/last_verdict"))
    codes = [reason["code"] for reason in verdict["reasons"]]
    assert (answered, verdict["compatible"]) == ((errno.EINVAL, False) if codes else (0, True))
    assert await target.client.read(f"{target.path}/migration_version") == target.string + "\n"
    check_tree(target.host.tree)
    return codes


async def reasons(target: End, string: str) -> list[tuple[str, str | None]]:
    """Code and parameter of each reason."""
    await answer(target, string)
    verdict = json.loads(await target.client.read(f"{target.path}/mdevfs/last_verdict"))
    return [(reason["code"], reason["parameter"]) for reason in verdict["reasons"]]
