"""Dumps for tests, in few words; what becomes of a stream between two of them, byte by byte; and dumps by chance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from attrs import define, field

from mdevfs.state.dump import Dump, parse

Json = dict[str, Any]


def plain(name: str, size: int, num: int | None = None, since: int = 0, maybe: bool = False) -> Json:
    """A field; of `num` elements, since a version, under a condition."""
    length = {} if num is None else {"num": num}
    return {"field": name, "version_id": since, "field_exists": maybe, **length, "size": size}


def struct(name: str, of: Json, num: int | None = None, since: int = 0, maybe: bool = False) -> Json:
    """A field that is a struct."""
    return {**plain(name, 64, num, since, maybe), "Description": of}


def described(
    name: str, fields: Sequence[Json], subsections: Sequence[Json] = (), version: int = 1, minimum: int = 0
) -> Json:
    """A description."""
    more = {"Subsections": list(subsections)} if subsections else {}
    return {"name": name, "version_id": version, "minimum_version_id": minimum, "Fields": list(fields), **more}


def dump(*devices: Json, machine: str = "mdevfs-test") -> Dump:
    """A dump of devices that are called as their descriptions."""
    entries = {
        one["name"]: {
            "Name": one["name"],
            "version_id": one["version_id"],
            "minimum_version_id": one["minimum_version_id"],
            "Description": one,
        }
        for one in devices
    }
    return parse(json.dumps({"vmschkmachine": {"Name": machine}, **entries}).encode(), "test")


def nic(*fields: Json, subsections: Sequence[Json] = (), version: int = 1, minimum: int = 0) -> Dump:
    """A dump of one device."""
    return dump(described("nic", fields, subsections, version, minimum))


# -- a stream without the product

Token = tuple[str, int]  # a byte: its field's path with the elements' numbers, and its number in the field
UNUSED = "unused"
FOOTER: Token = ("the footer", 0)


class Refused(Exception):
    """The target says no by itself."""


class Misread(Exception):
    """The target takes bytes for others."""


@define
class World:
    """What the dumps do not tell: the conditions of fields by their paths, the subsections that are needed.

    `strict`: versions count for fields under a condition too.
    """

    holds: Mapping[str, bool]
    needed: Mapping[str, bool]
    strict: bool
    tokens: list[Token] = field(factory=list)
    at: int = 0

    def moves(self, source: Json, target: Json) -> None:
        """Saves a device and loads it. Raises Refused or Misread."""
        self._save(source, source["version_id"], "")
        self.tokens.append(FOOTER)
        taken: list[tuple[str, list[Token]]] = []
        self._load(target, source["version_id"], "", taken)
        if self.tokens[self.at] != FOOTER:
            raise Misread
        self._check(taken)

    def _present(self, described: Json, version: int, path: str) -> Iterator[tuple[Json, str]]:
        for one in described["Fields"]:
            where = path + one["field"]
            maybe, new = one["field_exists"], one["version_id"] > version
            if (new and (self.strict or not maybe)) or (maybe and not self.holds[condition(where)]):
                continue
            yield one, where

    def _save(self, described: Json, version: int, path: str) -> None:
        for one, where in self._present(described, version, path):
            if inner := one.get("Description"):
                for index in range(one.get("num", 1)):
                    self._save(inner, inner["version_id"], f"{where}[{index}].")
            else:
                self.tokens += [(where, index) for index in range(one["size"] * one.get("num", 1))]
        for sub in described.get("Subsections", []):
            if self.needed[sub["name"]]:
                self.tokens.append((f"subsection {sub['name']}", sub["version_id"]))
                self._save(sub, sub["version_id"], f"{path}{sub['name']}/")

    def _load(self, described: Json, version: int, path: str, taken: list[tuple[str, list[Token]]]) -> None:
        if not described["minimum_version_id"] <= version <= described["version_id"]:
            raise Refused
        for one, where in self._present(described, version, path):
            if inner := one.get("Description"):
                for index in range(one.get("num", 1)):
                    self._load(inner, inner["version_id"], f"{where}[{index}].", taken)
            else:
                size = one["size"] * one.get("num", 1)
                taken.append((where, self.tokens[self.at : self.at + size]))
                self.at += size
                if self.at >= len(self.tokens):
                    raise Misread
        while self.tokens[self.at][0].startswith(f"subsection {described['name']}"):
            name, sent = self.tokens[self.at]
            known = {f"subsection {sub['name']}": sub for sub in described.get("Subsections", [])}
            if name == f"subsection {described['name']}":
                raise Misread
            if name not in known:
                raise Refused
            self.at += 1
            self._load(known[name], sent, f"{path}{known[name]['name']}/", taken)

    def _check(self, taken: list[tuple[str, list[Token]]]) -> None:
        """Whether every field got its own bytes; or bytes of fields that it may stand for."""
        sent: dict[str, int] = {}
        for path, _ in self.tokens:
            sent[path] = sent.get(path, 0) + 1
        for path, bytes_ in taken:
            sources = [one for one, _ in bytes_]
            if any(one.startswith(("subsection ", FOOTER[0])) for one in sources):
                raise Misread
            if not path.endswith(UNUSED) and path in sent and bytes_ != [(path, index) for index in range(sent[path])]:
                raise Misread
            partial = [one for one in sources if not one.endswith(UNUSED) and sources.count(one) < sent[one]]
            if not path.endswith(UNUSED) and partial and len(set(sources)) > 1:
                raise Misread


def condition(path: str) -> str:
    """Which condition decides: it is the same for all elements, and wherever the subsection is."""
    within, _, last = path.rpartition("/")
    plain_path = "".join(part.rpartition("]")[2] for part in last.split("["))
    return f"{within.rpartition('.')[2]}/{plain_path}"


# -- dumps by chance


def any_described(random: Random, name: str = "nic", depth: int = 0) -> Json:
    """A description; names are unique in it, but for unused bytes."""
    names = random.sample("abcdefg", random.randint(0 if depth else 1, 3 if depth else 5))
    fields = [_any_field(random, one, depth) for one in names]
    if random.random() < 0.2:
        fields.insert(random.randint(0, len(fields)), plain(UNUSED, random.choice((1, 2, 4))))
    subsections = [
        described(f"{name}/{one}", [_any_field(random, "v", 2)], version=random.randint(1, 2))
        for one in ("x", "y")
        if random.random() < 0.25
    ]
    version = random.randint(1, 3)
    return described(name, fields, subsections, version, random.randint(0, version))


def _any_field(random: Random, name: str, depth: int) -> Json:
    num = random.choice((1, 2, 3)) if random.random() < 0.2 else None
    since, maybe = random.choice((0, 0, 0, 1, 2, 3)), random.random() < 0.15
    if depth < 2 and random.random() < 0.25:
        inner = any_described(random, _any_name(random), depth + 1)
        return struct(name, inner, num, since, maybe)
    return plain(name, random.choice((1, 2, 2, 4, 8)), num, since, maybe)


def _any_name(random: Random) -> str:
    """No struct's name begins with another's: a loader would take the other's subsections for its own."""
    return f"struct{random.randrange(10**6):06}"


def edited(random: Random, one: Json) -> Json:
    """The description after one change or a few."""
    copy: Json = json.loads(json.dumps(one))
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        _edit(random, copy)
    return copy


def _edit(random: Random, one: Json) -> None:
    fields: list[Json] = one["Fields"]
    index = random.randrange(len(fields)) if fields else 0
    if fields and "Description" in fields[index] and random.random() < 0.5:
        _edit(random, fields[index]["Description"])
        return
    free = [name for name in "abcdefghij" if name not in [field["field"] for field in fields]]
    match random.choice(("drop", "add", "swap", "rename", "resize", "wrap", "bump", "since", "maybe", "num", "sub")):
        case "drop" if fields:
            del fields[index]
        case "add":
            fields.insert(index, _any_field(random, random.choice(free), 1))
        case "swap":
            random.shuffle(fields)
        case "rename" if fields:
            fields[index]["field"] = random.choice((*free, UNUSED) if "Description" not in fields[index] else free)
        case "resize" if fields:
            fields[index]["size"] = random.choice((1, 2, 4, 8))
        case "wrap" if fields:
            fields[index : index + 2] = [
                struct(random.choice(free), described(_any_name(random), fields[index : index + 2]))
            ]
        case "bump":
            one["version_id"] += 1
        case "since" if fields:
            fields[index]["version_id"] = random.randint(0, 4)
        case "maybe" if fields:
            fields[index]["field_exists"] ^= True
        case "num" if fields:
            fields[index]["num"] = random.randint(1, 3)
        case "sub" if one.get("Subsections"):
            sub = random.choice(one["Subsections"])
            match random.randrange(4):
                case 0:
                    one["Subsections"].remove(sub)
                case 1:
                    sub["name"] += "2"
                case 2:
                    sub["version_id"] += 1
                case _:
                    _edit(random, sub)
