#!/usr/bin/env python3
"""Reads and writes docs/proofs.md: which long runs there were, on which commit, with what result.

proofs.py [--proofs FILE] status [SUBJECT ...]   what of each subject counts today (scripts/soak --status)
proofs.py [--proofs FILE] next SUBJECT           the seed with which its next run begins
proofs.py --self-test                            checks this file; exits 1 if it is wrong

A row counts if the folders of its subject are at HEAD what they were at the row's commit. What
counted before a change of under 50 lines (added and removed ones together) counts after it too,
if a tenth of its seeds has run anew and the note of a row anew names the commit; scripts/soak
writes such notes.
"""

import argparse
import collections
import contextlib
import dataclasses
import fcntl
import functools
import os
import re
import subprocess
import sys
import tempfile

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROOFS = os.path.join(REPO, "docs", "proofs.md")

SUBJECTS_HEADER = "| subject | one seed | tests the folders |"
ROWS_HEADER = "| subject | commit | seeds | minutes | counts | findings | note |"

# A change of fewer lines in a subject's folders costs a tenth of the run anew, a larger one all of it.
SMALL_CHANGE = 50
TENTH = 10


class Malformed(Exception):
    """A line of the file that is not what this program writes."""


@dataclasses.dataclass(frozen=True)
class Finding:
    signature: str
    seed: int
    count: int
    known: bool

    def render(self):
        return f"{'known' if self.known else 'NEW'} {self.count}x, seed {self.seed}: {self.signature}"

    @staticmethod
    def parse(text):
        found = re.fullmatch(r"(known|NEW) (\d+)x, seed (\d+): (.+)", text)
        if not found:
            raise Malformed(f"no finding: {text!r}")
        known, count, seed, signature = found.groups()
        return Finding(signature, int(seed), int(count), known == "known")


@dataclasses.dataclass(eq=False)
class Row:
    """Seeds `first` to `last` of a subject. `subject` has the options of the run behind its name."""

    subject: str
    commit: str
    first: int
    last: int
    minutes: float
    counts: dict
    findings: list
    note: str = ""

    def name(self):
        return self.subject.split()[0]

    def seeds(self):
        return self.last - self.first + 1

    def render(self):
        counts = ", ".join(f"{kind} {count}" for kind, count in self.counts.items())
        findings = "; ".join(finding.render() for finding in self.findings) or "none"
        cells = [
            self.subject,
            self.commit,
            f"{self.first}-{self.last}",
            f"{self.minutes:.1f}",
            counts,
            findings,
            self.note,
        ]
        return "| " + " | ".join(cells) + " |"

    @staticmethod
    def parse(line):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 7:
            raise Malformed(f"{len(cells)} cells where a row has 7: {line!r}")
        subject, commit, seeds, minutes, counts, findings, note = cells
        numbers = re.fullmatch(r"(\d+)-(\d+)", seeds)
        if not numbers or int(numbers[1]) > int(numbers[2]):
            raise Malformed(f"seeds are written FIRST-LAST: {line!r}")
        if not subject or not re.fullmatch(r"[0-9a-f]{7,40}", commit):
            raise Malformed(f"no subject, or no commit: {line!r}")
        try:
            parsed = [pair.rsplit(" ", 1) for pair in counts.split(", ")] if counts else []
            counted = {kind: int(count) for kind, count in parsed}
            minutes = float(minutes)
        except ValueError as error:
            raise Malformed(f"{error}: {line!r}") from error
        listed = [] if findings == "none" else [Finding.parse(text) for text in findings.split("; ")]
        return Row(subject, commit, int(numbers[1]), int(numbers[2]), minutes, counted, listed, note)


def plain(text):
    """What may stand in a cell: nothing that ends a cell or an entry in it."""
    return re.sub(r"\s+", " ", text.replace("|", "/").replace(";", ",")).strip()


class Proofs:
    """The file: what each subject tests, and the rows."""

    def __init__(self, path):
        self.path = path
        with open(path, encoding="utf-8") as file:
            self.lines = file.read().splitlines()
        self.folders = dict(self.parsed(SUBJECTS_HEADER, self.parse_subject))
        self.rows = self.parsed(ROWS_HEADER, Row.parse)
        for row in self.rows:
            if row.name() not in self.folders:
                raise Malformed(f"{self.path}: rows of {row.name()}, which is no subject of the table")

    def table(self, header):
        """The numbers of the first line below the heading and of the first after the table."""
        if self.lines.count(header) != 1:
            raise Malformed(f"{self.path} needs one table that begins: {header}")
        start = end = self.lines.index(header) + 2
        while end < len(self.lines) and self.lines[end].startswith("|"):
            end += 1
        return start, end

    def parsed(self, header, parse):
        start, end = self.table(header)
        found = []
        for number in range(start, end):
            try:
                found.append(parse(self.lines[number]))
            except Malformed as error:
                raise Malformed(f"{self.path}:{number + 1}: {error}") from error
        return found

    @staticmethod
    def parse_subject(line):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        folders = re.findall(r"`([^`]+)`", cells[2]) if len(cells) == 3 else []
        if not folders:
            raise Malformed(f"a subject, what a seed is, and `folders`: {line!r}")
        return cells[0], folders

    def next_seed(self, subject):
        return max((row.last + 1 for row in self.rows if row.name() == subject), default=0)

    def append(self, row):
        _, end = self.table(ROWS_HEADER)
        self.lines.insert(end, row.render())
        self.rows.append(row)
        handle, new = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(self.path)))
        with open(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(self.lines) + "\n")
        os.chmod(new, 0o644)
        os.replace(new, self.path)


@contextlib.contextmanager
def alone(name, wait=True):
    """Nobody else who asks for `name` in this clone, or a worktree of it, runs meanwhile; without
    `wait`, BlockingIOError if somebody does."""
    path = os.path.join(git("rev-parse", "--path-format=absolute", "--git-common-dir"), f"{name}.lock")
    with open(path, "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


# --- What git knows ------------------------------------------------------------------------


def git(*arguments, check=True):
    done = subprocess.run(["git", "-C", REPO, *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise SystemExit(f"error: git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


NOT_THE_PROOFS = (".", ":(exclude)docs/proofs.md")


def uncommitted():
    """Changes that no commit names; those of the rows themselves are none."""
    return git("status", "--porcelain", "--", *NOT_THE_PROOFS)


def commit_of_code():
    """The last commit that changed anything but the rows."""
    return git("log", "-1", "--format=%h", "--abbrev=12", "HEAD", "--", *NOT_THE_PROOFS)


class Folders:
    """What some folders of this repository held at its commits."""

    def __init__(self, folders):
        self.folders = folders

    @functools.cache
    def version(self, commit):
        """Equal for commits with equal content; None for a commit that is not in this repository."""
        if git("cat-file", "-e", f"{commit}^{{commit}}", check=False) is None:
            return None
        return tuple(git("rev-parse", f"{commit}:{folder}", check=False) for folder in self.folders)

    def is_before(self, commit, later):
        return git("merge-base", "--is-ancestor", commit, later, check=False) is not None

    @functools.cache
    def changed_lines(self, before, after):
        """Lines added and removed between two commits of this repository."""
        total = 0
        listing = git("diff", "--numstat", "--no-renames", before, after, "--", *self.folders)
        for line in listing.splitlines():
            added, removed, _ = line.split("\t", 2)
            # A binary file has no lines: any change of it is a large one.
            total += SMALL_CHANGE if added == "-" else int(added) + int(removed)
        return total


# --- What counts ---------------------------------------------------------------------------


@dataclasses.dataclass
class Standing:
    """What counts at HEAD of the rows of one subject with one set of options."""

    counted: list
    # Rows before a small change that do not count yet, and why.
    waiting: list
    reasons: list
    # Rows before a large change, or of commits that are not in this repository.
    past: list


class History:
    """Rows by the content of the folders that they tested."""

    def __init__(self, rows, folders):
        self.rows, self.folders = rows, folders
        self.versions = {commit: folders.version(commit) for commit in {row.commit for row in rows}}

    def near(self, commit):
        """Earlier commits of rows from which `commit` is a small change away, as {commit: lines}."""
        own, near = self.folders.version(commit), {}
        for other in dict.fromkeys(row.commit for row in self.rows):
            elsewhere = self.versions[other] not in (None, own)
            if elsewhere and self.folders.is_before(other, commit):
                lines = self.folders.changed_lines(other, commit)
                if lines < SMALL_CHANGE:
                    near[other] = lines
        return near

    def counted(self, commit):
        """The rows that count at `commit`, those that wait for more, and what those wait for."""
        own = self.folders.version(commit)
        anew = [row for row in self.rows if self.versions[row.commit] == own]
        named, reasons = [], []
        for other in self.near(commit):
            # What counted there, counts here: a chain of small changes, each with its tenth.
            earlier = self.counted(other)[0]
            named += [row for row in earlier if row not in named and row not in anew]
            if not any(other in row.note for row in anew):
                reasons.append(f"no row anew names {other}")
        needed, have = -(-seeds_of(named) // TENTH), seeds_of(anew)
        if have < needed:
            reasons.append(f"{needed} seeds anew are needed, {have} have run")
        return (anew, named, reasons) if reasons else (named + anew, [], [])


def standing(rows, folders, head="HEAD"):
    counted, waiting, reasons = History(rows, folders).counted(head)
    past = [row for row in rows if row not in counted and row not in waiting]
    return Standing(counted, waiting, reasons, past)


def small_changes(rows, folders, commit="HEAD"):
    """The note of a run anew: the commits of earlier rows from which it is a small change away."""
    near = History(rows, folders).near(commit)
    return ", ".join(f"{lines} lines since {other}" for other, lines in near.items())


def seeds_of(rows):
    return sum(row.seeds() for row in rows)


def summed(rows):
    counts = collections.Counter()
    for row in rows:
        counts.update(row.counts)
    return dict(counts)


def describe(title, found):
    counted = found.counted
    minutes = sum(row.minutes for row in counted)
    lines = [f"{title}: {seeds_of(counted)} seeds in {minutes:.1f} minutes count"]
    counts = summed(counted)
    if counts:
        lines.append("  " + ", ".join(f"{kind} {count}" for kind, count in counts.items()))
    findings = [finding for row in counted for finding in row.findings]
    if findings:
        known = sum(finding.known for finding in findings)
        lines.append(f"  findings in these rows: {known} known, {len(findings) - known} NEW")
    if found.waiting:
        why = "; ".join(found.reasons)
        lines.append(f"  {seeds_of(found.waiting)} seeds from before a small change do not count yet: {why}")
    if found.past:
        lines.append(f"  {seeds_of(found.past)} seeds are of other code, or of commits that are not here")
    return "\n".join(lines)


def status(proofs, subjects):
    for subject in subjects or proofs.folders:
        if subject not in proofs.folders:
            raise SystemExit(f"error: no such subject: {subject}; there are: {', '.join(proofs.folders)}")
        folders = Folders(proofs.folders[subject])
        titles = dict.fromkeys(row.subject for row in proofs.rows if row.name() == subject)
        if not titles:
            print(f"{subject}: no row")
        for title in titles:
            rows = [row for row in proofs.rows if row.subject == title]
            print(describe(title, standing(rows, folders)))
        if git("status", "--porcelain", "--", *folders.folders):
            print("  (uncommitted changes in its folders: this is said of HEAD)")


# --- Self-test -----------------------------------------------------------------------------

SAMPLE = f"""# Proofs

{SUBJECTS_HEADER}
|---|---|---|
| one | a course | `src/a`, `src/b` |
| two | a course | `src` |

{ROWS_HEADER}
|---|---|---|---|---|---|---|
| one | 1234567 | 0-99 | 12.5 | steps 1000, fates crash 7 | none |  |
| one --only crash | abcdef123456 | 100-109 | 0.1 |  | NEW 1x, seed 104: lost write, fsync; known 2x, seed 101: x |  |
"""


def expect(found, expected):
    if found != expected:
        raise SystemExit(f"self-test: {found!r} where {expected!r} is right")


def expect_malformed(change, line):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "proofs.md")
        with open(path, "w", encoding="utf-8") as file:
            file.write(change(SAMPLE))
        try:
            Proofs(path)
        except Malformed as error:
            expect(f":{line}:" in str(error) or line is None, True)
        else:
            raise SystemExit(f"self-test: read without complaint:\n{change(SAMPLE)}")


def test_file():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "proofs.md")
        with open(path, "w", encoding="utf-8") as file:
            file.write(SAMPLE + "\nthe end\n")
        proofs = Proofs(path)
        expect(proofs.folders, {"one": ["src/a", "src/b"], "two": ["src"]})
        expect([row.seeds() for row in proofs.rows], [100, 10])
        expect(proofs.rows[0].counts, {"steps": 1000, "fates crash": 7})
        expect([finding.known for finding in proofs.rows[1].findings], [False, True])
        expect([proofs.next_seed("one"), proofs.next_seed("two")], [110, 0])
        finding = Finding(plain("a | b;\n c"), 7, 3, False)
        row = Row("two --x 1", "0123abc", 5, 5, 1.25, {"steps": 3}, [finding], "9 lines since 1234567")
        with alone("self-test"):
            proofs.append(row)
            try:
                with alone("self-test", wait=False):
                    raise SystemExit("self-test: two at once")
            except BlockingIOError:
                pass
        again = Proofs(path)
        expect([r.render() for r in again.rows], [r.render() for r in proofs.rows])
        expect(again.rows[2].findings[0].signature, "a / b, c")
        expect(again.next_seed("two"), 6)
        expect(again.lines[-1], "the end")


def test_malformed():
    expect_malformed(lambda text: text.replace("0-99", "99-0"), 10)
    expect_malformed(lambda text: text.replace("0-99", "0..99"), 10)
    expect_malformed(lambda text: text.replace("| 12.5 ", ""), 10)
    expect_malformed(lambda text: text.replace("12.5", "long"), 10)
    expect_malformed(lambda text: text.replace("steps 1000", "steps"), 10)
    expect_malformed(lambda text: text.replace("1234567", "HEAD"), 10)
    expect_malformed(lambda text: text.replace("known 2x", "two"), 11)
    expect_malformed(lambda text: text.replace("`src`", "src"), 6)
    expect_malformed(lambda text: text.replace("| one | 12", "| three | 12"), None)
    expect_malformed(lambda text: text.replace(ROWS_HEADER, "| subject |"), None)


class SampleFolders:
    """A history in which each commit is so many lines away from the beginning."""

    def __init__(self, **lines):
        self.lines = lines

    def version(self, commit):
        return self.lines.get(commit)

    def is_before(self, commit, later):
        return self.lines[commit] < self.lines[later]

    def changed_lines(self, before, after):
        return abs(self.lines[before] - self.lines[after])


def test_standing():
    folders = SampleFolders(a=0, b=1000, f=1048, c=1049, d=1098, HEAD=1098, later=1110)

    def row(commit, seeds, note=""):
        return Row("one", commit, 0, seeds - 1, 1.0, {}, [], note)

    def judged(*rows):
        found = standing(list(rows), folders)
        return [seeds_of(part) for part in (found.counted, found.waiting, found.past)]

    old, lost, small, new = row("a", 1000), row("e", 5), row("c", 1000), row("d", 100)
    named = row("d", 100, "49 lines since c")
    expect(judged(old, lost), [0, 0, 1005])
    expect(judged(old, new), [100, 0, 1000])
    expect(judged(small), [0, 1000, 0])
    expect(judged(row("f", 1000), row("d", 100, "50 lines since f")), [100, 0, 1000])
    expect(judged(small, new), [100, 1000, 0])
    expect(judged(small, named), [1100, 0, 0])
    expect(judged(small, row("d", 99, "49 lines since c")), [99, 1000, 0])
    expect(judged(small, new, row("d", 1, "49 lines since c")), [1101, 0, 0])
    # What counted before a small change counts after it, and costs its tenth again.
    before = [row("b", 1000), row("c", 100, "49 lines since b")]
    expect(judged(*before, row("d", 110, "49 lines since c")), [1210, 0, 0])
    expect(judged(*before, row("d", 109, "49 lines since c")), [109, 1100, 0])
    expect(judged(row("b", 1000), row("c", 100), row("d", 110, "49 lines since c")), [210, 0, 1000])
    # Rows of a branch that came after: they say nothing of what was before them.
    expect(judged(*before, row("d", 110, "49 lines since c"), row("later", 7)), [1210, 0, 7])
    expect(small_changes([old, small, new], folders), "49 lines since c")
    expect(small_changes([old], folders), "")
    expect(summed([Row("one", "a", 0, 0, 1, {"x": n}, []) for n in (1, 2)]), {"x": 3})


def self_test():
    test_file()
    test_malformed()
    test_standing()
    # The file of this repository can be read, too.
    Proofs(PROOFS)


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--proofs", default=PROOFS)
    parser.add_argument("what", choices=["status", "next"])
    parser.add_argument("subjects", nargs="*")
    arguments = parser.parse_args()
    try:
        proofs = Proofs(arguments.proofs)
    except Malformed as error:
        raise SystemExit(f"error: {error}") from error
    if arguments.what == "status":
        return status(proofs, arguments.subjects)
    for subject in arguments.subjects:
        print(proofs.next_seed(subject))
    return 0


if __name__ == "__main__":
    sys.exit(main())
