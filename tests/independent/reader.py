#!/usr/bin/env python3
"""A reader of the vault format, which shares no code with the drive.

It was written from the description of the format alone; the numbers in the comments are
the sections of that page. It reads tokens and payloads from a file, and changes nothing.

    reader.py --vault FILE.json --key-file KEY tree          the tree, as JSON
    reader.py --vault FILE.json --key-file KEY restore DIR   the tree, below DIR
    reader.py --vault FILE.json --key-file KEY report        what is in doubt, in the trash, ...
    reader.py --records FILE.json names                      section 8 alone, of bare records

A vault is a JSON array of {"token", "context", "fileName", "path", "size", "uuid",
"payload"}, the payload in base64. `--key-file` may be given several times.
"""

import argparse
import base64
import datetime
import functools
import hashlib
import hmac
import json
import os
import re
import sys
import tempfile
import uuid
from collections import Counter, defaultdict, namedtuple
from types import SimpleNamespace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

WORDS = {1: b"segment", 2: b"manifest", 3: b"page", 4: b"change"}
LIMITS = {1: 8 << 20, 2: 64 << 20, 3: 8 << 20, 4: 16 << 20}
KINDS = ["file", "folder", "symlink", "fifo", "socket", "char", "block"]
SIMPLE = {20: False, 21: True, 22: None}
ROOT = (2, 1)

# `newer` says what of a record is not known here; one that cannot be used at all has no kind.
Record = namedtuple("Record", "kind subject stamp members raw newer")


class Unreadable(Exception):
    """Bytes that break a rule of the format, or that are not there."""


class Newer(Unreadable):
    """Bytes that a newer program has written."""


# --- 2.3: the encoding ---


def decode(data):
    """One item in its only encoding, and nothing after it."""
    try:
        item, end = decode_item(data, 0, 0, [1024 + len(data) // 2])
    except UnicodeDecodeError:
        raise Unreadable("a text that is no UTF-8") from None
    if end != len(data) or encode(item) != data:
        raise Unreadable("not the deterministic encoding of one item")
    return item


def decode_item(data, at, depth, budget):
    budget[0] -= 1
    if at >= len(data) or budget[0] < 0:
        raise Unreadable("cut short, or too many items")
    major, info, at = data[at] >> 5, data[at] & 31, at + 1
    if major == 7 and info in SIMPLE:
        return SIMPLE[info], at
    if major > 5 or info > 27 or major > 3 and depth == 16:
        raise Unreadable("an item that is not used, or nested too deep")
    width = 1 << info - 24 if info > 23 else 0
    argument = int.from_bytes(data[at : at + width], "big") if width else info
    at += width
    if major < 2:
        return (-1 - argument if major else argument), at
    if major < 4:
        content, at = data[at : at + argument], at + argument
        return (content.decode() if major == 3 else content), at
    items = []
    for _ in range(argument * (major - 3)):
        item, at = decode_item(data, at, depth + 1, budget)
        items.append(item)
    if major == 4:
        return items, at
    if not all(type(key) is int and key >= 0 for key in items[::2]):
        raise Unreadable("a key that is no unsigned number")
    return dict(zip(items[::2], items[1::2])), at


def encode(item):
    def head(major, argument):
        if argument < 24:
            return bytes([major << 5 | argument])
        width = next(width for width in (1, 2, 4, 8) if argument < 1 << 8 * width)
        return bytes([major << 5 | 23 + width.bit_length()]) + argument.to_bytes(width, "big")

    if item is None or isinstance(item, bool):
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[item]
    if isinstance(item, int):
        return head(0, item) if item >= 0 else head(1, -1 - item)
    if isinstance(item, bytes):
        return head(2, len(item)) + item
    if isinstance(item, str):
        return head(3, len(item.encode())) + item.encode()
    if isinstance(item, dict):
        return head(5, len(item)) + b"".join(encode(key) + encode(item[key]) for key in sorted(item))
    return head(4, len(item)) + b"".join(map(encode, item))


# --- 4, 5, 6: shapes, functions that say whether an item is of them, and records ---

ABSENT = object()
below = lambda limit, least=0: lambda item: type(item) is int and least <= item < limit
sized = lambda least, most: lambda item: type(item) is bytes and least <= len(item) <= most
maybe = lambda shape: lambda item: item is ABSENT or shape(item)
or_null = lambda shape: lambda item: item is None or shape(item)
several = lambda shape: lambda item: type(item) is list and all(map(shape, item))
row = lambda *shapes: lambda item: (
    type(item) is list and len(item) == len(shapes) and all(shape(part) for shape, part in zip(shapes, item))
)
anything, true = (lambda item: item is not ABSENT), (lambda item: item is True)
text, boolean = (lambda item: type(item) is str), (lambda item: type(item) is bool)
unsigned, signed = below(1 << 63), below(1 << 63, -1 << 63)
number, writer = below(1 << 63, 256), below(1 << 64, 1)
id16, id8, raw_bytes = sized(16, 16), sized(8, 8), sized(0, 1 << 63)
stamp, moment = row(below(1 << 62), below(1 << 64)), row(signed, below(10**9))
identity, reference = row(unsigned, sized(12, 12), id16, id8), row(text, unsigned, sized(12, 12), id16, id8)
horizon = row(unsigned, several(row(writer, unsigned, identity)))
entry_name = lambda item: sized(1, 255)(item) and item not in (b".", b"..") and not {0, 0x2F} & set(item)
attribute_name = lambda item: sized(1, 255)(item) and 0 not in item
ascending = lambda item: several(id16)(item) and all(a < b for a, b in zip(item, item[1:]))

# Of each kind of payload, and of each kind of record, the members.
FORMS = {
    1: {1: or_null(reference), 2: unsigned, 3: several(row(writer, unsigned, reference)),
        4: several(raw_bytes), 5: unsigned, 6: several(reference)},
    2: {1: id16, 2: unsigned, 3: several(row(writer, unsigned, identity, unsigned, boolean)),
        4: several(reference), 5: several(reference), 6: horizon, 7: several(horizon), 8: unsigned,
        9: several(lambda item: text(item) or identity(item)), 10: unsigned},
    3: {1: several(row(writer, unsigned, unsigned, raw_bytes))},
    4: {1: unsigned, 2: several(row(unsigned, raw_bytes))},
}
PLACE = {1: id16, 2: maybe(reference), 3: maybe(reference), 4: maybe(several(row(reference, id16))), 5: maybe(unsigned)}
RECORDS = {
    1: {1: id16, 2: text},
    2: {1: text, 2: anything},
    3: {1: unsigned, 2: unsigned, 3: unsigned},
    4: {1: text, 2: text},
    5: {},
    6: {1: several(identity), 2: several(text), 3: maybe(text)},
    7: {1: id8, 2: maybe(sized(60, 60)), 3: maybe(id8), 4: maybe(true)},
    8: {1: id8, 2: maybe(sized(92, 92)), 3: maybe(id8), 4: maybe(true)},
    9: {1: several(row(text, id8))},
    10: {1: or_null(several(id16))},
    11: {1: text, 2: boolean},
    16: {1: unsigned, 2: moment, 3: unsigned, 4: raw_bytes},
    17: {1: below(0o10000), 2: unsigned, 3: unsigned, 4: moment},
    18: {1: moment, 2: moment},
    19: {1: attribute_name, 2: or_null(sized(0, 65536))},
    20: {1: id16, 2: ascending, 3: unsigned, 4: several(row(unsigned, unsigned)), 5: text, 6: signed, 7: maybe(id16)},
    21: {1: or_null(id16), 2: several(id16)},
    22: PLACE,
    23: {1: number, 2: lambda item: item == 1 or number(item), 3: entry_name, 4: stamp, 5: text, 6: signed},
    24: {1: number, 2: boolean, 3: ascending, 4: text, 5: signed},
    25: {1: id16, 2: number},
    26: {1: text, 2: or_null(reference)},
    27: PLACE,
}
SETTINGS = {"trash-days": below(36501), "trash-size": or_null(unsigned), "names": text}
is_target = lambda item: 1 <= len(item) <= 4095 and 0 not in item
is_place = lambda subject, m: not (2 in m and 3 in m or 4 in m and 5 not in m)
# The rules that are about more than one member.
RULES = {
    2: lambda subject, m: SETTINGS.get(m[1], anything)(m[2]),
    16: lambda subject, m: m[1] >= len(KINDS) or (subject[0] == 2) == (m[1] == 1)
    and (is_target(m[4]) if m[1] == 2 else m[4] == b""),
    20: lambda subject, m: apart(m[4], m[3]),
    22: is_place,
    23: lambda subject, m: subject[0] == 1 or subject[1] not in (1, m[2]),
    24: lambda subject, m: m[3] == [] or subject[0] == 1 and m[2],
    27: is_place,
}


def fits(members, shapes):
    """Whether a map has what it must; keys that are not listed are ignored."""
    return type(members) is dict and all(shape(members.get(key, ABSENT)) for key, shape in shapes.items())


def apart(ranges, size):
    """Whether ranges ascend, do not touch, and end within the size."""
    ends = [-1] + [offset + length for offset, length in ranges]
    return all(end < offset for end, (offset, _) in zip(ends, ranges)) and max(ends) <= size


def parse_record(raw):
    """A record (5), judged by its own bytes alone."""
    item = decode(raw) if len(raw) <= 1 << 20 else None
    if not row(unsigned, row(unsigned, unsigned), lambda part: fits(part, {0: stamp}))(item):
        raise Unreadable("not [kind, subject, members] with a stamp, of at most 1 MiB")
    kind, subject, m = item[0], tuple(item[1]), item[2]
    if subject not in ((0, 0), ROOT) and not (subject[0] in (1, 2) and number(subject[1])):
        raise Unreadable("no such subject")
    if kind not in RECORDS:
        return Record(None, subject, tuple(m[0]), m, raw, f"kind {kind}")
    types = (0,) if kind < 16 else (1, 2) if kind in (16, 17, 18, 19, 23, 24) else (1,)
    is_right = subject[0] in types and fits(m, RECORDS[kind])
    if not is_right or kind in RULES and not RULES[kind](subject, m):
        raise Unreadable(f"against the table of kind {kind}")
    # A value beyond a list that may grow makes a record one of an unknown kind.
    if kind == 16 and m[1] >= len(KINDS) or kind == 2 and m[1] == "names" and m[2] not in ("clear", "private"):
        return Record(None, subject, tuple(m[0]), m, raw, f"kind {kind} with an unknown value")
    more = sorted(m.keys() - RECORDS[kind].keys() - {0})
    return Record(kind, subject, tuple(m[0]), m, raw, f"kind {kind} with members {more}" if more else None)


# --- 1, 2, 3: keys, tokens, payloads ---


def subkey(key, info, length=32):
    return HKDF(SHA256(), length, b"privicorefs 2", info).derive(key)


def unseal(key, sealed, associated=None):
    """What `IV(12) | ciphertext | tag(16)` holds, or None."""
    try:
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], associated) if len(sealed) >= 28 else None
    except InvalidTag:
        return None


def read_key(path):
    with open(path, encoding="ascii") as file:
        content = file.read()
    if not re.fullmatch("[0-9a-fA-F]{64}\n", content):
        raise ValueError(f"{path} does not hold 64 hex digits and a newline")
    return bytes.fromhex(content.strip())


def derive(word, data, taken=()):
    """6.7. `taken` are the numbers of others."""
    digest = hashlib.sha256(word + b"\0" + data).digest()
    while (found := int.from_bytes(digest[:8], "big") & (1 << 63) - 1) < 256 or found in taken:
        digest = hashlib.sha256(digest).digest()
    return found


def is_marked(keys, text_of_uuid):
    """1: whether a drive with one of these keys has stored the token."""
    try:
        mark = uuid.UUID(text_of_uuid or "").bytes
    except ValueError:
        return False
    marks = [hmac.digest(subkey(key, b"mark"), mark[:8], "sha256") for key in keys.values()]
    return mark[6] >> 4 == 8 and any(mark[8:] == bytes([m[0] & 0x3F | 0x80]) + m[1:8] for m in marks)


def read_vault(path):
    """The tokens, and where which payload is, in the vendor's form and as catalog."""
    with open(path, encoding="utf-8") as file:
        tokens = {entry["token"]: entry for entry in json.load(file)}
    vault = SimpleNamespace(tokens=tokens, plain=defaultdict(list), catalog=defaultdict(list))
    for token, entry in tokens.items():
        wire = entry["wire"] = base64.b64decode(entry["payload"])
        vault.plain[len(wire), wire[:12], wire[-16:]].append(token)
        vault.catalog[catalog_identity(wire)].append(token)
    return vault


def catalog_identity(wire):
    return (len(wire), wire[48:60], wire[-16:], wire[16:24])


def why_absent(vault, token):
    return f"another payload is under {token}" if token in vault.tokens else f"{token} is not there"


def open_catalog(wire, keys, kinds=(1, 2, 3), change=b""):
    """A payload of the catalog (2.2): what its header says, and its content."""
    if wire[:11] != b"PRIVICOREFS" or len(wire) < 13:
        raise Unreadable("no header")
    if wire[11] != 2 or wire[12] > 4:
        raise Newer("another format, or another kind of payload")
    head, kind, key, name = wire[:48], wire[12], wire[16:24], catalog_identity(wire)
    maker, sequence = int.from_bytes(head[24:32], "big"), int.from_bytes(head[32:40], "big")
    place, count = int.from_bytes(head[40:44], "big"), int.from_bytes(head[44:], "big")
    right = kind in kinds and not any(head[13:16]) and maker and sequence and (kind != 4 or sequence == 1)
    right = right and (place < count if kind == 3 else place == count == 0)
    if not right or not 48 + 12 + 1 + 16 <= len(wire) <= LIMITS[kind]:
        raise Unreadable("a header or a length that is not in the table")
    if key not in keys:
        raise Unreadable(f"sealed by the key {key.hex()}, which is not here")
    plain = unseal(subkey(keys[key], WORDS[kind] + head[24:32]), wire[48:], head + change)
    if plain is None:
        raise Unreadable("does not open")
    if plain[0] != 0:
        raise Newer(f"packing {plain[0]}")
    content = decode(plain[1:])
    if not fits(content, FORMS[kind]):
        raise Unreadable("opens, and is not of the form")
    return SimpleNamespace(kind=kind, key=key, end=(maker, sequence, name), identity=name, place=place,
                           count=count, content=content, tokens=set())


# --- 4: segments, manifests, pages ---


def name_of(named):
    """The identity in a reference."""
    return tuple(named[1:])


def references(item):
    """What a payload of the catalog names, but for what a manifest replaces or covers."""
    content = item.content
    if item.kind == 1:
        return [content[1]] * (content[1] is not None) + [end[2] for end in content[3]] + content[6]
    return content[5] if item.kind == 2 else []


def open_all(vault, keys):
    """What the listed contexts hold, and what that names: {identity: payload}, {token: why not}."""
    contexts = {f".privicorefs/2/{one.hex()}/{place}" for one in keys for place in ("log", "checkpoint")}
    opened, failed = {}, {}
    queue = [token for token, entry in vault.tokens.items() if entry["context"] in contexts]
    seen = set(queue)
    while queue:
        token = queue.pop()
        try:
            item = open_catalog(vault.tokens[token]["wire"], keys)
        except Unreadable as error:
            failed[token] = error
            continue
        item = opened.setdefault(item.identity, item)
        item.tokens.add(token)
        found = {other for named in references(item) for other in vault.catalog.get(name_of(named), [])}
        queue += found - seen
        seen |= found
    return opened, failed


def counted(opened, keys, ended):
    """6.10: under an ended key counts only what is reached from what is under a later one."""
    queue = [item for item in opened.values() if item.key not in ended or keys.keys() <= ended]
    reached = {item.identity: item for item in queue}
    while queue:
        item = queue.pop()
        names = list(map(name_of, references(item)))
        if item.kind == 2:
            names += [name_of(named) for named in item.content[4]] + [tuple(end[2]) for end in item.content[3]]
        for name in names:
            if name in opened and name not in reached:
                reached[name] = opened[name]
                queue.append(opened[name])
    return reached


def prepare_manifest(manifest, opened, segments):
    """4.3: what it covers by name or by a chain, what it misses, and its records where it is whole."""
    content = manifest.content
    manifest.missing = {part if text(part) else tuple(part) for part in content[9]}
    manifest.ends = [(end[0], end[1], tuple(end[2])) for end in content[3]]
    manifest.covered = set()
    for _, _, name in manifest.ends:
        while name is not None and name not in manifest.covered:
            manifest.covered.add(name)
            before = segments[name].content[1] if name in segments else None
            name = name_of(before) if before else None
    manifest.covered.update(map(name_of, content[4]))
    pages = [opened.get(name_of(named)) for named in content[5]]
    manifest.is_whole = all(
        page and (page.kind, page.end[:2], page.place, page.count) == (3, manifest.end[:2], place, len(pages))
        for place, page in enumerate(pages)
    )
    manifest.raw = {line[3] for page in pages for line in page.content[1]} if manifest.is_whole else set()


def covers(manifests, segments, end, tokens=()):
    """Whether one of these manifests covers an end, `(writer, sequence, identity)`."""
    for manifest in manifests:
        if not manifest.missing.intersection([end[2], *tokens]):
            same = [other for other in manifest.ends if other[0] == end[0]]
            by_number = len(same) == 1 and same[0][1] > end[1] and end[2] not in segments
            if by_number or end[2] in manifest.covered:
                return True
    return False


def choose_manifests(whole, segments):
    """4.7, step 1: the manifests to load."""
    rest = [m for m in whole if all(m.content[2] >= other.content[6][0] for other in whole if other is not m)]
    loaded = []
    while rest:
        fresh = [sum(covers([m], segments, e) and not covers(loaded, segments, e) for e in m.ends) for m in rest]
        (most, _), place = min(((-count, m.identity), i) for i, (count, m) in enumerate(zip(fresh, rest)))
        if most == 0:
            break
        loaded.append(rest.pop(place))
    return loaded


def load(vault, keys, ended):
    """The records of a vault (4.7), and what there is to say about them."""
    c = SimpleNamespace(vault=vault, keys=keys, records={}, malformed={})
    c.opened, c.failed = open_all(vault, keys)
    c.counted = counted(c.opened, keys, ended)
    c.segments = {name: item for name, item in c.counted.items() if item.kind == 1}
    c.manifests = [item for item in c.counted.values() if item.kind == 2]
    for manifest in c.manifests:
        prepare_manifest(manifest, c.opened, c.segments)
    c.whole = [manifest for manifest in c.manifests if manifest.is_whole]
    c.loaded = choose_manifests(c.whole, c.segments)
    c.horizon = max((manifest.content[6][0] for manifest in c.whole), default=0)
    rest = [item for item in c.segments.values() if not covers(c.loaded, c.segments, item.end, item.tokens)]
    c.aside = [item for item in rest if item.content[2] < c.horizon
               and not covers(c.whole, c.segments, item.end, item.tokens)]
    names_aside = {item.identity for item in c.aside}
    c.applied = [item for item in rest if item.identity not in names_aside]
    in_pages = set().union(*(manifest.raw for manifest in c.loaded))
    for raw in in_pages.union(*(item.content[4] for item in c.applied)):
        try:
            c.records[raw] = parse_record(raw)
        except Unreadable as error:
            c.malformed[raw] = str(error)
    return c


def load_with_all_keys(vault, keys):
    """Reads again as long as key records bring older keys, or end some (6.10)."""
    keys, ended = dict(keys), set()
    while True:
        catalog, before = load(vault, dict(keys), ended), (len(keys), len(ended))
        for record in catalog.records.values():
            if record.kind == 7:
                name, sealed, by, has_ended = (record.members.get(member) for member in (1, 2, 3, 4))
                ended |= {name} if has_ended else set()
                key = unseal(subkey(keys[by], b"key wrap"), sealed, name + by) if sealed and by in keys else None
                if key is not None and subkey(key, b"key id", 8) == name:
                    keys[name] = key
        if before == (len(keys), len(ended)):
            return catalog


# --- 8: the tree ---


def holding(records, key, order, reverse=False):
    """Of the records with one key the one that holds: the last in that order."""
    return {key(record): record for record in sorted(records, key=order, reverse=reverse)}


def other_version(token, iv, tag):
    """6.8: the identity of the version that another client's payload is."""
    return hashlib.sha256(b"other\0" + token.encode() + b"\0" + iv + tag).digest()[:16]


def fold(records):
    """Sorts records by what they are about: registers, versions, links, heads."""
    s = SimpleNamespace(taken={}, removed={}, shown={}, living={}, links=defaultdict(dict), xattrs=defaultdict(dict),
                        covered=defaultdict(set), removals=defaultdict(list), others=defaultdict(list), of_file=defaultdict(list))
    subject, first, both = (lambda r: r.subject), (lambda r: r.members[1]), (lambda r: (r.subject, r.members[1]))
    latest, least = (lambda r: (r.stamp, r.raw)), (lambda r: (-r.stamp[0], -r.stamp[1], r.raw))
    base = lambda r: (r.members.get(2) or r.members.get(3) or [""])[0].encode()
    of_kind = defaultdict(list)
    s.objects = holding([r for r in records if r.kind == 16], subject, least)
    for record in records:
        # Records about what is not there wait for it (8.1).
        if record.subject in s.objects or record.subject == ROOT:
            of_kind[record.kind].append(record)
    regular = {subject for subject, record in s.objects.items() if record.members[1] == 0}
    s.attributes, s.times = holding(of_kind[17], subject, latest), holding(of_kind[18], subject, latest)
    s.versions = holding([r for r in of_kind[20] if r.subject in regular], first, lambda r: r.raw, True)
    s.places = holding(of_kind[22] + of_kind[27], first, lambda r: (*least(r)[:2], base(r), r.raw), True)
    for table, kind in ((s.xattrs, 19), (s.links, 23)):
        for (file, register), record in holding(of_kind[kind], both, latest).items():
            table[file][register] = record
    for table, kind in ((s.removals, 24), (s.others, 26)):
        for record in of_kind[kind]:
            table[record.subject].append(record)
    owned = lambda r: first(r) in s.versions and s.versions[first(r)].subject == (1, r.members[2])
    splits = holding([r for r in of_kind[25] if r.subject in regular and owned(r)], first, least)
    for record in of_kind[21]:
        if first(record) is None or first(record) in s.places:
            s.covered[record.subject].update(record.members[2])
    for name, version in s.versions.items():
        owner = splits[name].subject if name in splits else version.subject
        s.of_file[owner].append(version)
        # What a version that was split off lists is covered in both files.
        for file in {owner, version.subject} if name in s.places else ():
            s.covered[file].update(version.members[2])
    for file in s.objects:
        find_taken(s, file)
    for name, split in splits.items():
        # What was done to the file that it was written to is done to a version that was split off.
        file = s.versions[name].subject
        if name in s.covered[file] or name in s.taken[file]:
            s.covered[split.subject].add(name)
    for file in s.objects:
        find_links(s, file, file in regular)
    return s


def find_taken(s, subject):
    """8.2: what removals of a file took, and when its links were removed."""
    others, removed, taken = s.others[subject], s.removed.setdefault(subject, {}), s.taken.setdefault(subject, set())
    foreign = {version.members[1] for version in s.of_file[subject] if version.stamp == (0, 0)}
    for removal in s.removals[subject]:
        link, is_last, takes = (removal.members[key] for key in (1, 2, 3))
        removed[link] = max(removed.get(link, removal.stamp), removal.stamp)
        taken.update(takes)
        # Who takes no version of another client's token knew only that the token is there (6.8).
        if is_last and others and not foreign.intersection(takes):
            taken.update(foreign)


def find_links(s, subject, is_regular):
    """8.2, 8.3: the heads that are shown of a file, and its links that live.

    A living link is `(0 or 1, name record)`: 1 where it lives again.
    """
    links, others, versions = s.links[subject], s.others[subject], s.of_file[subject]
    removed, taken = s.removed[subject], s.taken[subject]
    pinned = [(-r.stamp[0], -r.stamp[1], r.raw, r.members[2]) for r in others if r.members[2]]
    token, _, iv, tag, _ = max(pinned)[3] if pinned else ("", 0, b"", b"", b"")
    pinned = other_version(token, iv, tag)
    heads = [v for v in versions if v.members[1] in s.places and v.members[1] not in s.covered[subject]]
    heads.sort(key=lambda v: (v.stamp, v.stamp == (0, 0) and v.members[1] == pinned, v.members[1]), reverse=True)
    untaken = [version for version in heads if version.members[1] not in taken]
    kept = [(0, record) for link, record in links.items() if link not in removed]
    s.shown[subject] = untaken
    # A link that only stands for a removed one keeps nothing that was taken with that.
    again = {derive(b"again", link.to_bytes(8, "big")) for link in links}
    if not untaken and any(record.members[1] not in again for _, record in kept):
        s.shown[subject] = heads
    elif not untaken and subject[0] == 1:
        kept = []
    elif not kept and links:
        kept = [(1, links[max(links, key=lambda link: (removed[link], link))])]
    if subject[0] == 1:
        s.living[subject] = [] if is_regular and not s.shown[subject] and not others else merge(kept)


def link_order(link):
    """8.5: those that were not removed first, then by rank, then by number."""
    return (link[0], link[1].members[4], link[1].members[1])


def merge(links):
    """8.5: links of one object with one folder and name are one, of the least rank."""
    merged = {}
    for link in sorted(links, key=link_order):
        merged.setdefault((link[1].members[2], link[1].members[3]), link)
    return list(merged.values())


def candidate(s, folder):
    """8.4: the only place that a folder may have: the name that gives it, and the link that it is."""
    links, removed = s.links[folder], s.removed.get(folder, {})
    kept = [record for link, record in links.items() if link not in removed]
    if not links:
        return None
    if not kept:
        best = links[max(links, key=lambda link: (removed[link], link))]
        return best, (1, best)
    best, where = max(kept, key=lambda record: (record.stamp, record.members[1])), lambda r: (r.members[2], r.members[3])
    return best, min(((0, record) for record in kept if where(record) == where(best)), key=link_order)


def living_folders(s):
    """8.4: {folder: (the folder it stands in, its link)} of those that the root leads to."""
    queue = [f for f in s.objects if f[0] == 2 and s.links[f].keys() - s.removed[f].keys()]
    queue += [(2, record.members[2]) for links in s.living.values() for _, record in links]
    places = {}
    while queue:
        folder = queue.pop()
        if folder in s.objects and folder not in places and folder != ROOT:
            place = candidate(s, folder)
            if place:
                places[folder] = place
                queue.append((2, place[0].members[2]))
    above, done = {folder: (2, place[0].members[2]) for folder, place in places.items()}, set()
    for folder in places:
        path = {}
        while folder in above and folder not in done and folder not in path:
            path[folder] = len(path)
            folder = above[folder]
        if folder in path:
            circle = list(path)[path[folder] :]
            above[max(circle, key=lambda f: (places[f][0].stamp, f[1]))] = ROOT
        done.update(path)
    children = defaultdict(list)
    for folder, parent in above.items():
        children[parent].append(folder)
    shown, queue = {ROOT: None}, [ROOT]
    while queue:
        for folder in children[queue.pop()]:
            shown[folder] = (above[folder], places[folder][1])
            queue.append(folder)
    return shown


def cut(name, length):
    """At most so many bytes, at a boundary of UTF-8 where it is UTF-8."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return name[:length]
    return name[:length].decode(errors="ignore").encode()


def minute(milliseconds):
    """YYYY-MM-DD HHMM, of the years 0000 to 9999; Python lacks the first of them."""
    days, minutes = divmod(milliseconds // 60000, 1440)
    day = days + datetime.date(1970, 1, 1).toordinal()
    if not -365 <= day <= datetime.date.max.toordinal():
        return b"1970-01-01 0000"
    # After 400 years, which have 146,097 days, the calendar repeats itself.
    date, years = datetime.date.fromordinal(day if day > 0 else day + 146097), 0 if day > 0 else 400
    return b"%04d-%02d-%02d %02d%02d" % (date.year - years, date.month, date.day, *divmod(minutes, 60))


def conflict_name(name, machine, milliseconds, has):
    """8.5: the first conflict name that nobody has."""
    dot = name.rfind(b".", 1)
    stem, extension = (name[:dot], name[dot:]) if dot > 0 and len(name) - dot <= 64 else (name, b"")
    machine = re.sub(rb"[\x00-\x1f\x7f/()]", b"_", cut(machine.encode(), 64)) or b"another machine"
    middle = b" (conflict %s %s)" % (machine, minute(milliseconds))
    stem, count = cut(stem, 250 - len(middle) - len(extension)), 1
    while (found := stem + middle + (b" %d" % count if count > 1 else b"") + extension) in has:
        count += 1
    return found


def names(s):
    """8.5: {folder number: {name: entry}}; the entry of a copy has no link."""
    folders = living_folders(s)
    asking, copies, result = defaultdict(list), defaultdict(list), {}
    for folder, place in folders.items():
        if place is not None:
            asking[place[0]].append((place[1], folder))
    for subject, links in s.living.items():
        for link in links:
            asking[2, link[1].members[2]].append((link, subject))
        if links:
            beside = min(links, key=link_order)[1].members
            copies[2, beside[2]] += [(version, beside[3], subject) for version in s.shown[subject][1:]]
    numbers = {subject[1] for subject in s.objects}
    for folder in folders:
        has, late = {}, []
        for link, subject in sorted(asking[folder], key=lambda pair: (link_order(pair[0]), pair[1])):
            name, version = link[1].members[3], (s.shown[subject] or [None])[0]
            entry = {"subject": subject, "number": subject[1], "version": version, "link": link[1].members[1]}
            if has.setdefault(name, entry) is not entry:
                late.append((name, link[1].members, entry))
        for version, name, subject in sorted(copies[folder], key=lambda copy: (copy[0].stamp, copy[0].members[1])):
            copy = derive(b"copy", version.members[1], numbers)
            late.append((name, version.members, {"subject": subject, "number": copy, "version": version, "link": None}))
        for name, members, entry in late:
            # The machine and the time are members 5 and 6 of names and of versions.
            has[conflict_name(name, members[5], members[6], has)] = entry
        result[folder[1]] = has
    return result


def names_of_sets(path):
    """The mode for comparison: section 8, of records alone; of one set, or of several."""
    with open(path, encoding="utf-8") as file:
        sets = json.load(file)
    return [names_of_records(some) for some in sets] if sets and isinstance(sets[0], list) else names_of_records(sets)


def names_of_records(given):
    """Section 8, of one set of records."""
    records, plain = {}, {}
    for raw in map(bytes.fromhex, given):
        try:
            records[raw] = parse_record(raw)
        except Unreadable as error:
            print(f"reader.py: malformed: {raw.hex()[:80]}: {error}", file=sys.stderr)
    for folder, has in names(fold(records.values())).items():
        for entry in has.values():
            entry["type"] = entry.pop("subject")[0]
            entry["version"] = entry["version"].members[1].hex() if entry["version"] else None
        plain[str(folder)] = {name.hex(): entry for name, entry in has.items()}
    return plain


# --- 2.1, 6.6, 7: contents ---


def payload(vault, keys, named):
    """The plaintext of a reference to a payload in the vendor's form."""
    token, length, iv, tag, sealed_by = named
    if sealed_by not in keys:
        raise Unreadable(f"the key {sealed_by.hex()} is not here")
    # Any token with this identity will do; nothing with another is opened.
    found = vault.plain.get((length, iv, tag), [])
    for other in found:
        plain = unseal(keys[sealed_by], vault.tokens[other]["wire"])
        if plain is not None:
            return plain
    raise Unreadable(f"{token} does not open" if found else why_absent(vault, token))


def read_parts(keys, plain, sealed_by):
    """7: a part list as (size, part size, references, of what was left out None)."""
    try:
        listed, left_out = json.loads(plain.decode()) if len(plain) <= 256 << 20 else None, ["", 0, b"", b"", b""]
        size, part_size, tokens, pins, mac = (listed[key] for key in ("size", "part_size", "parts", "pins", "mac"))
        right = (listed["privicorefs"], listed["version"]) == ("parts", 2) and below(1 << 53)(size)
        right = right and below((1 << 30) + 1, 4096)(part_size) and several(text)(tokens)
        right = right and len(tokens) == len(pins) == -(-size // part_size) <= 1 << 20
        rows = [[token, pin[0], *map(bytes.fromhex, pin[1:])] for token, pin in zip(tokens, pins)]
        right = right and all(line == left_out or line[0] and reference(line) for line in rows)
        wanted, mac = encode([2, size, part_size, rows]), bytes.fromhex(mac)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        right = False
    if not right:
        raise Unreadable("no part list, or not of the form")
    if not hmac.compare_digest(hmac.digest(subkey(keys[sealed_by], b"part list"), wanted, "sha256"), mac):
        raise Unreadable("a part list with a wrong mac")
    return size, part_size, [None if line == left_out else line for line in rows]


def write_parts(vault, keys, parts, file):
    size, part_size, rows = parts
    file.truncate(size)
    for place, named in enumerate(rows):
        if named is not None:
            plain = payload(vault, keys, named)
            if len(plain) != min(part_size, size - place * part_size):
                raise Unreadable(f"the part {named[0]} has another size")
            file.seek(place * part_size)
            file.write(plain)


def open_change(vault, keys, named, name):
    why = why_absent(vault, named[0])
    for token in vault.catalog.get(name_of(named), []):
        try:
            content = open_catalog(vault.tokens[token]["wire"], keys, (4,), name).content
            if apart([(offset, len(data)) for offset, data in content[2]], content[1]):
                return content
            why = f"the change {token} is not of the form"
        except Unreadable as error:
            why = f"the change {token}: {error}"
    raise Unreadable(why)


def write_version(vault, keys, version, place, file):
    """Writes the content of a version into an empty file."""
    def check(found, wanted):
        if found != wanted:
            raise Unreadable(f"{found} bytes are there, and {wanted} were written")

    members, size = place.members, version.members[3]
    if 2 in members:
        file.write(payload(vault, keys, members[2]))
    elif 3 in members:
        write_parts(vault, keys, read_parts(keys, payload(vault, keys, members[3]), members[3][4]), file)
    found = file.seek(0, os.SEEK_END)
    check(found, members[5] if 4 in members else size)
    for named, name in members.get(4, []):
        content = open_change(vault, keys, named, name)
        found = content[1]
        file.truncate(found)
        for offset, data in content[2]:
            file.seek(offset)
            file.write(data)
    check(found, size)


def open_foreign(vault, keys, token):
    """Another client's payload: (key id, plaintext, part list or None)."""
    for sealed_by, key in keys.items() if token in vault.tokens else ():
        plain = unseal(key, vault.tokens[token]["wire"])
        if plain is not None:
            try:
                return sealed_by, plain, read_parts(keys, plain, sealed_by)
            except Unreadable:
                return sealed_by, plain, None
    raise Unreadable(f"{token or 'what another client stored'} is not there, or does not open")


def write_foreign(vault, keys, token, file):
    _, plain, parts = open_foreign(vault, keys, token)
    if parts:
        write_parts(vault, keys, parts, file)
    else:
        file.write(plain)


# --- 6.8, 9: other clients ---


def fold_with_others(catalog):
    """The records, and for each token that they say is another client's the version that is under it now."""
    records, vault = dict(catalog.records), catalog.vault
    known = {record.members[1] for record in records.values() if record.kind == 20}
    for record in catalog.records.values():
        token = record.members[1] if record.kind == 26 else None
        if token not in vault.tokens:
            continue
        wire = vault.tokens[token]["wire"]
        name = other_version(token, wire[:12], wire[-16:])
        try:
            sealed_by, plain, parts = open_foreign(vault, catalog.keys, token)
        except Unreadable:
            continue
        version = {0: [0, 0], 1: name, 2: [], 3: parts[0] if parts else len(plain), 4: [], 5: "another client", 6: 0}
        place = {0: [0, 0], 1: name, (3 if parts else 2): [token, len(wire), wire[:12], wire[-16:], sealed_by]}
        for raw in (encode([20, record.subject, version]), encode([22, record.subject, place])):
            if name not in known:
                records[raw] = parse_record(raw)
    return fold(records.values())


def texts(item):
    """Every text in an item."""
    if isinstance(item, str):
        return {item}
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return set().union(*map(texts, parts))


def path_of(entry):
    """9: the components of where another client's token stands."""
    path = (entry["context"] or "").split("/") + (entry["path"] or "").split("/") + [entry["fileName"] or ""]
    percent = lambda match: b"".join(b"%%%02X" % byte for byte in match[0])
    return [re.sub(rb"\A\.\.?\Z|[%/\0]", percent, part.encode()) for part in path if part]


def add_others(catalog, shown, numbers):
    """9: puts the tokens that no record names into the folders that are shown."""
    named = set().union(*(texts(record.members) for record in catalog.records.values()))
    # A byte string in a record that is not known may be a token too (5).
    unknown = b"\0".join(record.raw for record in catalog.records.values() if record.newer)
    folders = {}

    def put(at, name, subject, token):
        # The file has no dates, and a token without one counts as of 1970.
        has = shown[at]
        name = conflict_name(name, "another client", 0, has) if name in has else name
        has[name] = {"subject": subject, "number": subject[1], "version": None, "link": None, "token": token}

    for token, entry in sorted(catalog.vault.tokens.items(), key=lambda pair: pair[0].encode()):
        path, at = path_of(entry), 1
        if not path or path[0] == b".privicorefs" or is_marked(catalog.keys, entry["uuid"]):
            continue
        if token in named or token.encode() in unknown:
            continue
        for depth, part in enumerate(path[:-1], 1):
            held = shown[at].get(part)
            if (at, part) not in folders and held and held["subject"][0] == 2:
                folders[at, part] = held["number"]
            elif (at, part) not in folders:
                fresh = folders[at, part] = derive(b"folder", b"/".join(path[:depth]), numbers)
                put(at, part, (2, fresh), None)
                shown[fresh] = {}
            at = folders[at, part]
        put(at, path[-1], (1, derive(b"other", token.encode(), numbers)), token)


# --- What is shown ---


def build(catalog):
    """{path: node}, the root under the empty path. The names of one file share a node."""
    s = fold_with_others(catalog)
    shown = names(s)
    add_others(catalog, shown, {subject[1] for subject in s.objects})
    nodes, made, queue = {b"": node_of(catalog, s, {"subject": ROOT, "number": 1})}, {}, [(b"", 1)]
    nodes[b""]["nlink"] = 1
    while queue:
        above, folder = queue.pop()
        for name, entry in shown[folder].items():
            path, key = above + b"/" * bool(above) + name, (entry["subject"][0], entry["number"])
            if key not in made:
                made[key] = node_of(catalog, s, entry)
            made[key]["nlink"] += 1
            nodes[path] = made[key]
            if key[0] == 2:
                queue.append((path, key[1]))
    return nodes


def node_of(catalog, s, entry):
    subject, version, vault, keys = entry["subject"], entry.get("version"), catalog.vault, catalog.keys
    record, attributes, times = s.objects.get(subject), s.attributes.get(subject), s.times.get(subject)
    kind = KINDS[record.members[1]] if record else "folder" if subject[0] == 2 else "file"
    default = 0o755 if subject == ROOT else 0o700 if kind == "folder" else 0o600
    held = attributes.members if attributes else {1: default, 2: os.getuid(), 3: os.getgid()}
    node = {"kind": kind, "number": entry["number"], "nlink": 0, "size": 0, "target": None, "content": None,
            "mode": held[1], "owner": held[2], "group": held[3]}
    node["mtime"] = times.members[2] if times else record.members[2] if record else [0, 0]
    values = {name: register.members[2] for name, register in s.xattrs[subject].items()}
    node["xattrs"] = {name: value for name, value in values.items() if value is not None}
    if kind == "symlink":
        node["target"], node["size"] = record.members[4], len(record.members[4])
    elif kind == "file" and version:
        place, when = s.places[version.members[1]], version.members[6]
        node["size"] = version.members[3]
        node["content"] = functools.partial(write_version, vault, keys, version, place)
        if entry["link"] is None:
            node["mtime"] = [when // 1000, when % 1000 * 1_000_000]
    elif kind == "file":
        # Where a record says that it is another client's, and no version is shown, nothing is.
        token = entry.get("token")
        listed = vault.tokens.get(token or s.others[subject][0].members[1], {"size": None})
        node["size"], node["content"] = listed["size"], functools.partial(write_foreign, vault, keys, token)
    return node


def shown_text(name):
    return name.decode("utf-8", "surrogateescape")


def describe(node):
    """A node as the tree prints it."""
    entry = {key: node[key] for key in ("kind", "number", "owner", "group", "size", "mtime", "nlink")}
    entry["mode"], entry["sha256"], entry["damaged"] = f"{node['mode']:04o}", None, None
    entry["target"] = None if node["target"] is None else shown_text(node["target"])
    entry["xattrs"] = {shown_text(name): value.hex() for name, value in node["xattrs"].items()}
    if node["content"]:
        with tempfile.TemporaryFile() as file:
            try:
                node["content"](file)
                entry["size"] = file.seek(0, os.SEEK_END)
                file.seek(0)
                entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
            except Unreadable as error:
                entry["damaged"] = str(error)
    return entry


def tree(catalog):
    nodes = build(catalog)
    described = {key: describe(node) for key, node in {id(node): node for node in nodes.values()}.items()}
    return {shown_text(path): described[id(node)] for path, node in nodes.items()}


def complain(path, why):
    print(f"reader.py: {shown_text(path)!r}: {why}", file=sys.stderr)


def restore(catalog, directory):
    nodes, made = build(catalog), {}
    os.makedirs(directory, exist_ok=True)
    if os.listdir(directory):
        raise OSError(f"{directory} is not empty")
    for path in sorted(nodes):
        node, full = nodes[path], os.path.join(os.fsencode(directory), path)
        try:
            if id(node) in made:
                os.link(made[id(node)], full, follow_symlinks=False)
            else:
                restore_one(node, full)
                made[id(node)] = full
        except (OSError, Unreadable) as error:
            complain(path, f"not restored: {error}")
    # What is put into a folder changes its time, so that the deepest come first.
    for path in sorted(nodes, reverse=True):
        full = os.path.join(os.fsencode(directory), path)
        if made.get(id(nodes[path])) == full:
            restore_attributes(nodes[path], path, full)
    return {"restored": len(made)}


def restore_one(node, full):
    if node["kind"] == "folder":
        os.makedirs(full, 0o700, exist_ok=True)
    elif node["kind"] == "symlink":
        os.symlink(node["target"], full)
    elif node["kind"] == "fifo":
        os.mkfifo(full, 0o600)
    elif node["kind"] == "file":
        try:
            with open(full, "x+b") as file:
                node["content"](file)
        except Unreadable:
            os.unlink(full)
            raise
    else:
        raise Unreadable(f"a {node['kind']}")


def restore_attributes(node, path, full):
    when, status, call = node["mtime"][0] * 10**9 + node["mtime"][1], os.lstat(full), functools.partial
    steps = [call(os.setxattr, full, name, value, follow_symlinks=False)
             for name, value in node["xattrs"].items() if name.startswith(b"user.")]
    if (status.st_uid, status.st_gid) != (node["owner"], node["group"]):
        steps.append(call(os.chown, full, node["owner"], node["group"], follow_symlinks=False))
    if node["kind"] != "symlink":
        steps.append(call(os.chmod, full, node["mode"]))
    for step in [*steps, call(os.utime, full, ns=(when, when), follow_symlinks=False)]:
        try:
            step()
        except (OSError, OverflowError) as error:
            complain(path, f"skipped: {error}")
    if not all(name.startswith(b"user.") for name in node["xattrs"]):
        complain(path, "skipped: extended attributes that are not user.*")


# --- The report ---


def find_doubt(c):
    """4.6: what is known of and not accounted for."""
    doubt, given_up = {}, set()
    for record in c.records.values():
        if record.kind == 6:
            given_up.update(map(tuple, record.members[1]), record.members[2])
        if record.kind == 7 and record.members[1] not in c.keys:
            doubt["key " + record.members[1].hex()] = "the vault names it, and it is not here"
    before = [line for m in c.whole if m.content[6][0] == c.horizon for line in m.content[6][1]]
    fine = {m.identity for m in c.whole} | {name_of(named) for m in c.whole for named in m.content[4]} | given_up

    def why_not(named):
        errors = [str(c.failed[token]) for token in c.vault.catalog.get(name_of(named), []) if token in c.failed]
        return errors[0] if errors else why_absent(c.vault, named[0])

    for item in c.applied:
        ends = list(item.content[3])
        if item.content[1] is not None:
            ends.append([item.end[0], item.end[1] - 1, item.content[1]])
        for maker, sequence, named in ends:
            name, token = name_of(named), named[0]
            is_old = any(line[0] == maker and line[1] >= sequence or tuple(line[2]) == name for line in before)
            if not (is_old or name in c.segments or given_up & {name, token}
                    or covers(c.whole, c.segments, (maker, sequence, name), [token])):
                doubt[f"segment {maker:016x}-{sequence:016x}, {token}"] = why_not(named)
        for named in item.content[6]:
            if not fine & {name_of(named), named[0]} and name_of(named) not in c.opened:
                doubt[f"manifest {named[0]}"] = why_not(named)
    for manifest in c.manifests:
        if not fine & {manifest.identity, *manifest.tokens}:
            pages = [why_not(named) for named in manifest.content[5] if name_of(named) not in c.opened]
            doubt[f"manifest {min(manifest.tokens)}"] = "; ".join(["not whole", *pages])
    for token, error in c.failed.items():
        name = catalog_identity(c.vault.tokens[token]["wire"])
        is_covered = any(name in m.covered and not m.missing & {name, token} for m in c.whole)
        if name not in c.opened and not given_up & {name, token} and not is_covered:
            doubt[f"payload {token}"] = str(error)
    return [{"what": what, "why": why} for what, why in sorted(doubt.items())]


def find_trash(c, s):
    """10.1: versions with a place that are not shown, and why they are still known."""
    trash = []
    for subject, version in [(subject, version) for subject in s.of_file for version in s.of_file[subject]]:
        name, damaged = version.members[1], None
        is_taken, is_old = name in s.taken[subject], name in s.covered[subject]
        if version in s.shown[subject] or name not in s.places or not (is_taken or is_old):
            continue
        with tempfile.TemporaryFile() as file:
            try:
                write_version(c.vault, c.keys, version, s.places[name], file)
            except Unreadable as error:
                damaged = str(error)
        trash.append({"version": name.hex(), "file": subject[1], "why": "trash" if is_taken else "old",
                      "name": last_name(s, subject, name), "size": version.members[3],
                      "there": damaged is None, "damaged": damaged})
    return sorted(trash, key=lambda entry: (entry["file"], entry["version"]))


def last_name(s, subject, name):
    """The path that a version had when it was taken, or else that its file has or had."""
    links, removed = s.links[subject], s.removed[subject]
    takers = [r for r in s.removals[subject] if name in r.members[3] and r.members[1] in links]
    if takers:
        record = links[max(takers, key=lambda r: r.stamp).members[1]]
    elif s.living[subject]:
        record = min(s.living[subject], key=link_order)[1]
    else:
        record = links[max(links, key=lambda link: (removed.get(link, (-1, -1)), link))] if links else None
    parts, passed = [], set()
    while record is not None and record.members[2] not in passed:
        parts.insert(0, record.members[3])
        passed.add(record.members[2])
        record = (candidate(s, (2, record.members[2])) or [None])[0]
    # Of what is in a folder that is not known the way to the root is not known.
    return shown_text(b"/".join(parts if 1 in passed else [b"?", *parts]))


def report(c):
    def lines(items):
        return [{"writer": f"{i.end[0]:016x}", "sequence": i.end[1], "day": i.content[2], "tokens": sorted(i.tokens)}
                for i in sorted(items, key=lambda i: i.end)]

    newer = [{"what": f"payload {t}", "why": str(error)} for t, error in c.failed.items() if isinstance(error, Newer)]
    newer += [{"what": "record " + r.raw.hex(), "why": r.newer} for r in c.records.values() if r.newer]
    twins = Counter(item.end[:2] for item in c.segments.values())
    return {
        "doubt": find_doubt(c),
        "set_aside": lines(c.aside),
        "malformed": [{"record": raw.hex(), "why": why} for raw, why in sorted(c.malformed.items())],
        "newer": sorted(newer, key=lambda entry: entry["what"]),
        "trash": find_trash(c, fold_with_others(c)),
        "horizon": c.horizon,
        # Manifests of which an end is covered by none that was loaded.
        "left_behind": lines(m for m in c.whole if not all(covers(c.loaded, c.segments, end) for end in m.ends)),
        "twins": lines(item for item in c.segments.values() if twins[item.end[:2]] > 1),
        "under_ended_keys": lines(i for i in c.opened.values() if i.kind != 3 and i.identity not in c.counted),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vault")
    parser.add_argument("--key-file", action="append", default=[])
    parser.add_argument("--records")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("tree", "report", "names"):
        commands.add_parser(name)
    commands.add_parser("restore").add_argument("directory")
    options = parser.parse_args()
    if not (options.records if options.command == "names" else options.vault and options.key_file):
        parser.error("names takes --records; the others take --vault and --key-file")
    try:
        if options.command == "names":
            result = names_of_sets(options.records)
        else:
            keys = {subkey(key, b"key id", 8): key for key in map(read_key, options.key_file)}
            catalog = load_with_all_keys(read_vault(options.vault), keys)
            if options.command == "restore":
                result = restore(catalog, options.directory)
            else:
                result = {"tree": tree, "report": report}[options.command](catalog)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"reader.py: {options.command}: {type(error).__name__}: {error}")
    print(json.dumps(result, sort_keys=True))


if __name__ == "__main__":
    main()
