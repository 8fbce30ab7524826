#!/usr/bin/env python3
"""Makes a small tree of everything that copying tools get wrong: odd_tree.py DIRECTORY

Names with spaces, a newline, UTF-8, bytes that are not UTF-8 and 255 bytes; symbolic
links to everything and to nothing; hard links across folders; odd modes; empty folders;
sizes around every boundary; holes; times before 1970 and after 2038; `user.*` attributes.

The same bytes come out on every run, so two trees made at different times are equal.
"""

import os
import random
import sys

NS = 1_000_000_000
MIB = 1 << 20
# Around a page, the inline limit of the service (51,200 wire bytes) and the kernel's
# read and write sizes.
SIZES = [0, 1, 4095, 4096, 4097, 36_000, 51_172, 51_173, 51_200, 65_536, 131_073, MIB + 7]
NAMES = [
    b"with space",
    b" leading and trailing ",
    b"-leading-dash",
    b".hidden",
    b"new\nline",
    b"tab\tand\\backslash",
    b"quote'\"`$(x);*?[]{}",
    b"trailing dot.",
    "naïve-Größe-Ω-日本語-🦀".encode(),
    "e\u0301-decomposed".encode(),
    "\u00e9-composed".encode(),
    b"not-utf8-\xff\xfe\x80",
    b"n" * 255,
    "ü".encode() * 127 + b"x",
    b"%2F%00-looks-encoded",
    b"no-extension.",
    b"two.ext.tar.gz",
]
TIMES = [0, 1, -NS, -1, 1_123_456_789, 1_700_000_000 * NS + 123_456_789, (1 << 32) * NS + 5]
FILE_MODES = [0o400, 0o444, 0o600, 0o640, 0o666, 0o755, 0o777, 0o4755, 0o2755, 0o1644]
DIR_MODES = [0o700, 0o755, 0o777, 0o1777, 0o2775, 0o555]


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def sparse(path, size, *extents):
    """A file of `size` bytes with data only at `extents`: (offset, bytes)."""
    with open(path, "wb") as file:
        for offset, content in extents:
            file.seek(offset)
            file.write(content)
        file.truncate(size)


def make(root):
    rng = random.Random(20)
    join = os.path.join
    os.makedirs(root)

    for folder in (b"sizes", b"names", b"modes", b"links", b"times", b"holes", b"attributes", b"empty"):
        os.mkdir(join(root, folder))
    for size in SIZES:
        write(join(root, b"sizes", b"%d" % size), rng.randbytes(size))

    for number, name in enumerate(NAMES):
        write(join(root, b"names", name), b"content %d\n" % number)
        os.mkdir(join(root, b"names", name[:250] + b".dir"))
        write(join(root, b"names", name[:250] + b".dir", name), b"below %d\n" % number)
    write(join(root, b"names", "Case".encode()), b"upper\n")
    write(join(root, b"names", "case".encode()), b"lower\n")

    os.makedirs(join(root, b"empty", b"nested", b"deeper"))
    os.mkdir(join(root, b"empty", b"beside"))
    deep = join(root, b"deep")
    for level in range(40):
        deep = join(deep, b"level-%02d" % level)
    os.makedirs(deep)
    write(join(deep, b"bottom"), b"bottom\n")

    links = join(root, b"links")
    write(join(links, b"target"), b"target\n")
    for name, target in {
        b"relative": b"target",
        b"up": b"../sizes/4096",
        b"folder": b"../names",
        b"dangling": b"no/such/file",
        b"absolute": b"/nonexistent/absolute",
        b"self": b"self",
        b"new\nline": b"tar\nget",
        b"not-utf8": b"\xff\xfe",
        b"long": b"x/" * 1900 + b"end",
    }.items():
        os.symlink(target, join(links, name))
    write(join(links, b"one"), b"three names, one file\n")
    os.link(join(links, b"one"), join(links, b"two"))
    os.link(join(links, b"one"), join(root, b"names", b"three"))
    write(join(links, b"pair"), b"")
    os.link(join(links, b"pair"), join(links, b"pair again"))

    holes = join(root, b"holes")
    sparse(join(holes, b"all"), 8 * MIB)
    sparse(join(holes, b"start"), 4 * MIB, (4 * MIB - 10, b"at the end"))
    sparse(join(holes, b"end"), 4 * MIB, (0, b"at the start"))
    sparse(join(holes, b"middle"), 8 * MIB, (0, rng.randbytes(5000)), (5 * MIB + 3, rng.randbytes(70_000)))

    attributes = join(root, b"attributes")
    write(join(attributes, b"file"), b"with attributes\n")
    os.mkdir(join(attributes, b"folder"))
    for path in (join(attributes, b"file"), join(attributes, b"folder")):
        os.setxattr(path, b"user.comment", "grüße".encode())
        os.setxattr(path, b"user.empty", b"")
        os.setxattr(path, b"user.binary", bytes(range(256)))
        os.setxattr(path, b"user." + b"n" * 200, b"long name")
        os.setxattr(path, b"user.large", rng.randbytes(1500))

    for number in range(len(TIMES)):
        write(join(root, b"times", b"%d" % number), b"time\n")
        os.mkdir(join(root, b"times", b"%d.dir" % number))
    os.symlink(b"0", join(root, b"times", b"link"))

    for mode in FILE_MODES:
        path = join(root, b"modes", b"file-%04o" % mode)
        write(path, b"mode %04o\n" % mode)
        os.chmod(path, mode)
    for mode in DIR_MODES:
        folder = join(root, b"modes", b"dir-%04o" % mode)
        os.mkdir(folder)
        write(join(folder, b"inside"), b"inside %04o\n" % mode)
        os.chmod(folder, mode)
    if os.geteuid() == 0:
        # Only root can read a file of mode 0, or give one away.
        write(join(root, b"modes", b"file-0000"), b"nobody reads me\n")
        os.chmod(join(root, b"modes", b"file-0000"), 0)
        write(join(root, b"modes", b"owned"), b"someone else's\n")
        os.chown(join(root, b"modes", b"owned"), 12_345, 54_321)
        os.chown(join(root, b"links", b"dangling"), 12_345, 54_321, follow_symlinks=False)
    set_times(root)


def set_times(root):
    """A fixed time in the past for everything, folders after what is in them: rsync
    takes two times within one second for equal, so a tree made just now would be
    copied with the nanoseconds of the copy."""
    for number, nanoseconds in enumerate(TIMES):
        for suffix in (b"", b".dir"):
            path = os.path.join(root, b"times", b"%d%s" % (number, suffix))
            os.utime(path, ns=(nanoseconds, nanoseconds))
    odd = 987_654_321
    for folder, folders, files in os.walk(root, topdown=False):
        for name in sorted(files + folders):
            path = os.path.join(folder, name)
            if os.path.dirname(path) != os.path.join(root, b"times") or os.path.islink(path):
                odd = (odd * 1_103_515_245 + 12_345) % (1 << 31)
                nanoseconds = (1_500_000_000 + odd % 100_000_000) * NS + odd % NS
                os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)
    os.utime(root, ns=(1_600_000_000 * NS + 1, 1_600_000_000 * NS + 1))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: odd_tree.py DIRECTORY (which must not exist)")
    make(os.fsencode(sys.argv[1]))
