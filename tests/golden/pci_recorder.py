"""Records what a kernel shows of PCI functions and answers to writes to their files, with the uevents that follow.

    pci_recorder.py tree ROOT OUT PATH...
    pci_recorder.py ops ROOT OUT FUNCTION DRIVER PF PF_DRIVER

Stdlib only, for it runs on real kernels too (recordings/README.md says how). FUNCTION is a conventional one on bus 0
that DRIVER has, PF a PCIe one on another bus with SR-IOV of 4 VFs whose PF_DRIVER enables them; both are bound and
nobody uses them. As root, in the network namespace that the uevents come to.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

Json = dict[str, object]
KOBJECT_UEVENT = 15
# Folders of other subsystems' devices, and what depends on the driver's use of interrupts and wake-up.
OTHERS = {"hwmon", "msi_irqs", "net", "nvme", "ptp", "wakeup"}
SENTINEL = "5e471ae1-0000-4000-8000-{:012x}"


def name_of(error: OSError) -> str:
    return errno.errorcode[error.errno or 0]


# -- the tree


def node(path: str) -> Json:
    """Mode, size, link count; a link's target, a text or the errno of reading it."""
    status = os.lstat(path)
    found: Json = {"mode": f"{status.st_mode:o}", "size": status.st_size, "nlink": status.st_nlink}
    if stat.S_ISLNK(status.st_mode):
        return found | {"link": os.readlink(path)}
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o444 and status.st_size == 4096:
        return found | read(path)
    return found


def read(path: str) -> Json:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return {"text": os.read(descriptor, 4096).decode("latin-1")}
        finally:
            os.close(descriptor)
    except OSError as error:
        return {"errno": name_of(error)}


def tree(root: str, tops: list[str]) -> dict[str, Json]:
    os.chdir(root)
    found = {}
    for top in tops:
        found[top] = node(top)
        for directory, folders, files in os.walk(top):
            folders[:] = [name for name in folders if name not in OTHERS and ":pcie" not in name]
            found |= {path: node(path) for name in (*folders, *files) if (path := f"{directory}/{name}")}
    return found


# -- what is written

Step = tuple[str, str, tuple[str, ...]]  # file, text, files to look at afterwards


def each(file: str, *texts: str) -> Iterator[Step]:
    """Texts written one after another, and what the file holds then."""
    for text in texts:
        yield file, text, (file,)


def steps(ids: str) -> Iterator[Step]:
    """All of them; {fn}, {pf}, {vf} are functions, {driver} and {pf_driver} their drivers, `ids` the function's."""
    yield from state_of_a_function()
    yield from drivers(ids)
    yield from resets()
    yield from virtual_functions()
    yield from removals()
    yield from the_rest()


def state_of_a_function() -> Iterator[Step]:
    power = tuple(f"{{fn}}/power/{one}" for one in ("control", "runtime_status", "runtime_enabled", "runtime_usage"))
    yield from each("{fn}/numa_node", "0\n", "1\n", "-1\n", "99999\n", "x\n", "0x0\n", "")
    yield from each("{fn}/msi_bus", "0", "1", "2", "x", "", "y", "-1")
    yield from each("{fn}/broken_parity_status", "1", "0", "x", "2", "255")
    yield from each("{fn}/d3cold_allowed", "1", "0", "x", "7")
    yield from each("{fn}/enable", "1", "0", "x", "2")
    for text in ("auto", "on", "x", "auto\n", "AUTO", "on\n\n", "on"):
        yield "{fn}/power/control", text, power
    yield from each("{fn}/power/async", "disabled", "enabled", "x", "disable", "enabled\n")
    yield from each("{fn}/power/autosuspend_delay_ms", "100", "x", "-1")
    yield "{fn}/resource0", "abcd", ()


def drivers(ids: str) -> Iterator[Step]:
    driver, vfio, probe = "bus/pci/drivers/{driver}", "bus/pci/drivers/vfio-pci", "bus/pci/drivers_probe"
    bound, override = ("{fn}/driver",), "{fn}/driver_override"
    texts = ("vfio-pci", "foo\n", "", "\n", "vfio-pci\n", "a" * 4095, "a" * 4096, "a" * 5000, "two words\n", "a\nb\n")
    yield from each(override, *texts, "\0", "\n")
    for text in ("junk", "0000:ff:1f.7", "{fn_name}\n\n", "{fn_name}"):
        yield f"{driver}/bind", text, bound
    yield from ((f"{driver}/unbind", text, ()) for text in ("junk", "0000:ff:1f.7"))
    yield f"{vfio}/unbind", "{fn_name}", bound
    yield (
        f"{driver}/unbind",
        "{fn_name}",
        ("{fn}/driver", "{fn}/enable", "{fn}/power/runtime_usage", "{fn}/power_state"),
    )
    yield f"{driver}/unbind", "{fn_name}", bound
    yield from each("{fn}/enable", "1", "1", "0", "0", "0", "x")
    yield f"{vfio}/bind", "{fn_name}", bound
    yield override, "vfio-pci", (override,)
    yield f"{driver}/bind", "{fn_name}", bound
    power = ("power/control", "power/runtime_status", "power/runtime_usage", "power_state", "enable")
    yield f"{vfio}/bind", "{fn_name}", (*bound, *(f"{{fn}}/{one}" for one in power))
    yield f"{vfio}/bind", "{fn_name}", bound
    yield override, "\n", (override, *bound)
    yield "{fn}/driver/unbind", "{fn_name}", (*bound, *(f"{{fn}}/{one}" for one in power))
    yield from ((probe, text, bound) for text in ("{fn_name}", "{fn_name}", "0000:ff:1f.7"))
    yield f"{driver}/unbind", "{fn_name}", bound
    more = ("8086 1572 8086 0000 020000 ffffff 0", "1 2 3 4 5 6 7 8", "99999 1", "8086 10d3 ffffffff ffffffff 0 0 zz")
    for text in ("junk", "8086", "8086 ", "ffff", "zzzz yyyy", ids, ids, f"{ids}\n", *more):
        yield f"{vfio}/new_id", text, bound
    for text in ("junk", "8086", "1234 5678", ids, ids):
        yield f"{vfio}/remove_id", text, bound
    yield f"{vfio}/unbind", "{fn_name}", bound
    yield from each("bus/pci/drivers_autoprobe", "0", "x", "\n", "1", "2", "0")
    yield probe, "{fn_name}", bound
    yield from each("bus/pci/drivers_autoprobe", "1")
    yield f"{driver}/bind", "{fn_name}", bound


def resets() -> Iterator[Step]:
    words = ("default", "bus", "flr", "pm", "flr bus", "bus flr", "flr,bus", "acpi", " flr", "default flr")
    yield from each("{pf}/reset_method", "junk", "", "\n", *words, "device_specific", "default\n")
    yield from (("{pf}/reset", text, ()) for text in ("0", "x", "2"))
    yield from each("{pf}/reset_method", "\n")
    yield "{pf}/reset", "1", ()
    yield from each("{pf}/reset_method", "default\n")
    yield "{fn}/reset", "1", ("{fn}/reset_method",)


def virtual_functions() -> Iterator[Step]:
    count, autoprobe, virtual = "{pf}/sriov_numvfs", "{pf}/sriov_drivers_autoprobe", ("{pf}/virtfn0", "{pf}/virtfn1")
    unbind, bind = "bus/pci/drivers/{pf_driver}/unbind", "bus/pci/drivers/{pf_driver}/bind"
    yield from each(autoprobe, "x", "1", "2", "0")
    yield from each(count, "x", "", "-1", "0x", "100000", "70000", "5", "0")
    yield count, "0x2\n", (count, *virtual, "{pf}/enable", "{pf}/power_state", "{pf}/sriov_offset", "{pf}/sriov_stride")
    names = (
        "enable",
        "power_state",
        "numa_node",
        "msi_bus",
        "d3cold_allowed",
        "reset_method",
        "driver_override",
        "irq",
    )
    power = ("remove", "rescan", "sriov_vf_msix_count", "power/control", "power/runtime_usage", "power/runtime_status")
    yield count, "2", (count, *(f"{{vf}}/{name}" for name in (*names, *power)))
    yield from each(count, "1", "3")
    yield count, "0\n", (count, *virtual)
    yield count, "1", (count, *virtual, "{vf}/driver")
    yield "{vf}/driver_override", "vfio-pci", ("{vf}/driver_override",)
    yield "bus/pci/drivers_probe", "{vf_name}", ("{vf}/driver", "{vf}/enable", "{vf}/power_state")
    yield "{vf}/reset", "1", ()
    yield unbind, "{pf_name}", ("{pf}/driver", count, *virtual)
    yield from each(count, "1", "0", "1")
    yield bind, "{pf_name}", ("{pf}/driver", count)
    yield from each(count, "0")
    yield "{pf}/driver_override", "vfio-pci", ()
    yield unbind, "{pf_name}", ("{pf}/driver",)
    yield "bus/pci/drivers_probe", "{pf_name}", ("{pf}/driver",)
    yield from each(count, "1", "0")
    yield "{pf}/driver/unbind", "{pf_name}", ("{pf}/driver",)
    yield "{pf}/driver_override", "\n", ()
    yield "bus/pci/drivers_probe", "{pf_name}", ("{pf}/driver",)


def removals() -> Iterator[Step]:
    rescan = "bus/pci/rescan"
    yield from (("{fn}/remove", text, ("{fn}",)) for text in ("0", "x", "2"))
    yield from ((rescan, text, ("{fn}",)) for text in ("x", "0", "", "1"))
    yield "{fn}/remove", "1", ("{fn}",)
    yield "bus/pci/drivers_probe", "{fn_name}", ()
    yield rescan, "1", ("{fn}/driver",)
    yield "{fn}/rescan", "1", ()
    yield from (("class/pci_bus/0000:00/rescan", text, ()) for text in ("1", "x"))
    yield "{pf}/remove", "1", ("{pf}",)
    yield rescan, "1", ("{pf}/driver", "{pf}/sriov_numvfs")


def the_rest() -> Iterator[Step]:
    yield from each("bus/pci/resource_alignment", "12@pci:8086:1572", "x", "", "\n")
    words = ("add", "change", "x", f"add {'a' * 36}", "bind")
    yield from (("{fn}/uevent", text, ()) for text in words)
    yield from ((path, "add", ()) for path in ("bus/pci/uevent", "bus/pci/drivers/{driver}/uevent"))
    kind = "{fn}/iommu_group/type"
    yield from each(kind, "DMA", "identity", "auto", "DMA-FQ", "x", "")
    yield "bus/pci/drivers/{driver}/unbind", "{fn_name}", ()
    yield from each(kind, "x", "DMA", "DMA-FQ", "DMA", "identity", "auto", "identity\n", "", "DMA-FQ")
    yield "bus/pci/drivers/{driver}/bind", "{fn_name}", ("{fn}/driver",)
    yield from (("class/pci_bus/0000:00/cpuaffinity", text, ()) for text in ("1", "x"))


# -- writing it, and what is heard


class Recorder:
    def __init__(self, root: str, function: str, driver: str, pf: str, pf_driver: str) -> None:
        self.root = Path(root)
        devices = "bus/pci/devices"
        vf = pf[:-1] + "1"
        self.names = {"fn_name": function, "pf_name": pf, "vf_name": vf, "driver": driver, "pf_driver": pf_driver}
        self.names |= {"fn": f"{devices}/{function}", "pf": f"{devices}/{pf}", "vf": f"{devices}/{vf}"}
        self.heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, KOBJECT_UEVENT)
        self.heard.settimeout(60)
        self.heard.bind((0, 1))
        self.count = 0

    def record(self) -> list[Json]:
        ids = " ".join((self.root / self.names["fn"] / name).read_text().strip()[2:] for name in ("vendor", "device"))
        return [self.step(*one) for one in steps(ids)]

    def step(self, file: str, text: str, looks: tuple[str, ...]) -> Json:
        data = text.format(**self.names) if "{" in text else text
        result = self.write(file, data)
        events = self.events()
        return {
            "file": file,
            "data": data if len(data) < 50 else f"{data[:4]}... ({len(data)})",
            "result": result,
            "then": {one: self.look(one) for one in looks},
            "events": events,
        }

    def write(self, file: str, data: str) -> int | str:
        try:
            descriptor = os.open(self.root / file.format(**self.names), os.O_WRONLY)
            try:
                return os.write(descriptor, data.encode("latin-1"))
            finally:
                os.close(descriptor)
        except OSError as error:
            return name_of(error)

    def look(self, file: str) -> str | bool | None:
        """A file's text or an errno; a link's last name; whether there is a function."""
        path = self.root / file.format(**self.names)
        if file in ("{fn}", "{pf}"):
            return path.exists()
        if file.endswith("/driver") or "virtfn" in file:
            return path.readlink().name if path.is_symlink() else None
        if not path.exists():
            return "ENOENT"
        found = read(str(path))
        return str(found.get("text", found.get("errno")))[:200]

    def events(self) -> list[list[str]]:
        """All since the last step: a synthetic one of our own comes after them."""
        self.count += 1
        mark = SENTINEL.format(self.count)
        self.write("class/pci_bus/0000:00/uevent", f"change {mark}")
        found: list[list[str]] = []
        while True:
            head, *keys = [part.decode() for part in self.heard.recv(65536).split(b"\0") if part]
            if f"SYNTH_UUID={mark}" in keys:
                return found
            found.append([head, *(key for key in keys if not key.startswith(("SEQNUM=", "DEVPATH=", "ACTION=")))])


def main() -> None:
    what, root, out, *names = sys.argv[1:]
    found: object = tree(root, names) if what == "tree" else Recorder(root, *names).record()
    Path(out).write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    main()
