#!/usr/bin/env python3
"""Compares two trees attribute by attribute: compare_trees.py [--sparse] EXPECTED ACTUAL

For every name below both folders, and for the folders themselves: type, mode, owner,
group, modification time to the nanosecond, which names are one file, the target of a
symbolic link, extended attributes `user.*` (but for the drive's own `user.privicore.*`),
size and SHA-256 of the content. `--sparse`: also, a file with large holes may not have
become dense. Prints each difference; exit code 0 if there is none, 1 otherwise.
"""

import hashlib
import os
import stat
import sys

# Enough to see what went wrong, without a page per file.
MOST_REPORTED = 60


def kind(mode):
    return stat.filemode(mode)[0]


def attributes(path):
    """The user's own extended attributes: the drive's live ones are not part of a copy."""
    found = {}
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith("user.") and not name.startswith("user.privicore."):
            found[name] = os.getxattr(path, name, follow_symlinks=False)
    return found


def digest(path):
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(root):
    """{relative path: lstat} of everything below `root`, itself included as b'.'."""
    found = {b".": os.lstat(root)}
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                found[path] = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
    return found


def names_of_one_file(tree):
    """{path: all paths in the tree that are the same file}, for files with several."""
    groups = {}
    for path, status in tree.items():
        if not stat.S_ISDIR(status.st_mode):
            groups.setdefault((status.st_dev, status.st_ino), []).append(path)
    return {path: sorted(group) for group in groups.values() if len(group) > 1 for path in group}


def compare(expected_root, actual_root, sparse, report):
    expected, actual = walk(expected_root), walk(actual_root)
    expected_links, actual_links = names_of_one_file(expected), names_of_one_file(actual)
    for path in sorted(expected.keys() - actual.keys()):
        report(path, "is missing")
    for path in sorted(actual.keys() - expected.keys()):
        report(path, "should not be there")
    for path in sorted(expected.keys() & actual.keys()):
        before, after = expected[path], actual[path]
        if kind(before.st_mode) != kind(after.st_mode):
            report(path, f"type {kind(after.st_mode)}, not {kind(before.st_mode)}")
            continue
        for name, old, new in (
            ("mode", f"{stat.S_IMODE(before.st_mode):04o}", f"{stat.S_IMODE(after.st_mode):04o}"),
            ("owner", before.st_uid, after.st_uid),
            ("group", before.st_gid, after.st_gid),
            ("mtime", before.st_mtime_ns, after.st_mtime_ns),
            ("hard links", expected_links.get(path), actual_links.get(path)),
        ):
            if old != new:
                report(path, f"{name} {new}, not {old}")
        one, other = os.path.join(expected_root, path), os.path.join(actual_root, path)
        try:
            compare_content(path, one, other, before, after, report)
            if sparse and stat.S_ISREG(before.st_mode):
                compare_holes(path, before, after, report)
        except OSError as error:
            report(path, f"cannot be read: {error.strerror} ({os.fsdecode(error.filename or b'')})")
    return len(expected)


def compare_content(path, one, other, before, after, report):
    old, new = attributes(one), attributes(other)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            report(path, f"attribute {name} is {shown(new.get(name))}, not {shown(old.get(name))}")
    if stat.S_ISLNK(before.st_mode):
        if os.readlink(one) != os.readlink(other):
            report(path, f"points to {os.readlink(other)!r}, not {os.readlink(one)!r}")
    elif stat.S_ISREG(before.st_mode):
        if before.st_size != after.st_size:
            report(path, f"size {after.st_size}, not {before.st_size}")
        elif digest(one) != digest(other):
            report(path, "content differs")
    elif stat.S_ISBLK(before.st_mode) or stat.S_ISCHR(before.st_mode):
        if before.st_rdev != after.st_rdev:
            report(path, f"device {after.st_rdev:#x}, not {before.st_rdev:#x}")


def compare_holes(path, before, after, report):
    """A file of which half or more is hole must stay at least a quarter hole: block
    sizes differ between filesystems, so the exact figures may."""
    allocated, size = before.st_blocks * 512, before.st_size
    if size >= 1 << 20 and allocated * 2 <= size and after.st_blocks * 512 * 4 > size * 3:
        report(path, f"holes are gone: {after.st_blocks * 512} of {size} bytes allocated")


def shown(value):
    if value is None:
        return "absent"
    return repr(value) if len(value) <= 40 else f"{value[:40]!r}... ({len(value)} bytes)"


def main(arguments):
    sparse = "--sparse" in arguments
    roots = [os.fsencode(argument) for argument in arguments if argument != "--sparse"]
    if len(roots) != 2:
        sys.exit("usage: compare_trees.py [--sparse] EXPECTED ACTUAL")
    differences = []
    count = compare(*roots, sparse, lambda path, what: differences.append((path, what)))
    for path, what in differences[:MOST_REPORTED]:
        print(f"{os.fsdecode(path)!r}: {what}".encode(errors="backslashreplace").decode())
    if len(differences) > MOST_REPORTED:
        print(f"... and {len(differences) - MOST_REPORTED} more differences")
    if not differences:
        print(f"equal: {count} names")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
