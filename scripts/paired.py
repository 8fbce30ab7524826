#!/usr/bin/env python3
"""Judges the alternating runs of scripts/bench --against: is the new commit slower?

paired.py FOLDER           prints the table; exits 1 if a row, or all of them together, became slower
paired.py --again FOLDER   prints the tests of the rows that need more runs
paired.py --self-test      checks this file; exits 1 if it is wrong

FOLDER has the runs: PHASE.NUMBER.old and .new, PHASE being `first` or `again`, an object a line as
scripts/bench_workload prints them. A run of the new commit is compared with the run of the old one
just before it, so that what else the machine does weighs on both; a ratio is the median of the pairs.
"""

import json
import math
import os
import re
import statistics
import sys
import tempfile

# Above this ratio a row is run again, and fails if it is above it again.
SLOWER = 1.10
# The limit of the second judgement where the old commit's own quartiles are more than SPREAD of
# its median apart: such a row tells less.
SLOWER_IF_SPREAD = 1.25
SPREAD = 0.10
# A row of less than SHORT seconds is judged by the difference instead.
SHORT = 0.1
SHORT_SLOWER = 0.020
# The geometric mean of all rows.
ALL_SLOWER = 1.05


class Runs:
    """What one row took, by pairs: of the old commit and of the new."""

    def __init__(self):
        self.old, self.new = [], []

    def __add__(self, other):
        both = Runs()
        both.old, both.new = self.old + other.old, self.new + other.new
        return both

    def values(self, key):
        pairs = zip(self.old, self.new, strict=True)
        return [(old[key], new[key]) for old, new in pairs if old.get(key) is not None and new.get(key) is not None]

    def ratio(self, key="seconds"):
        # A tick of CPU time, or no request at all, tells nothing of a ratio.
        ratios = [new / old for old, new in self.values(key) if old > 0 and new > 0]
        return statistics.median(ratios) if ratios else None

    def old_median(self):
        return statistics.median(old for old, _ in self.values("seconds"))

    def spread(self):
        """How far the old commit's quartiles are apart, as a part of its median."""
        old = [old for old, _ in self.values("seconds")]
        if len(old) < 2:
            return 0.0
        lower, median, upper = statistics.quantiles(old, n=4, method="inclusive")
        return (upper - lower) / median

    def is_slower(self, limit):
        if self.old_median() < SHORT:
            return statistics.median(new - old for old, new in self.values("seconds")) > SHORT_SLOWER
        return self.ratio() > limit

    def is_slower_again(self):
        return self.is_slower(SLOWER_IF_SPREAD if self.spread() > SPREAD else SLOWER)


def read(folder, phase):
    """The complete pairs of a phase by row, and the test that each row belongs to."""
    numbers = sorted(
        int(found[1]) for name in os.listdir(folder) if (found := re.fullmatch(rf"{phase}\.(\d+)\.new", name))
    )
    rows, tests = {}, {}
    for number in numbers:
        for side in ("old", "new"):
            with open(os.path.join(folder, f"{phase}.{number:02}.{side}"), encoding="utf-8") as lines:
                for line in lines:
                    row = json.loads(line)
                    tests[row["name"]] = row["test"]
                    getattr(rows.setdefault(row["name"], Runs()), side).append(row)
    for name, runs in rows.items():
        if len(runs.old) != len(runs.new):
            raise SystemExit(f"error: {name} was run {len(runs.old)} times by the old commit, {len(runs.new)} by the new")
    return rows, tests


class Judgement:
    def __init__(self, folder):
        self.first, self.tests = read(folder, "first")
        self.again, _ = read(folder, "again")
        if not self.first:
            raise SystemExit(f"error: there is no pair of runs in {folder}")
        self.suspect = [name for name, runs in self.first.items() if runs.is_slower(SLOWER)]
        unclear = [name for name in self.suspect if name not in self.again]
        self.tests_again = list(dict.fromkeys(self.tests[name] for name in unclear))
        self.slower = [name for name in self.suspect if name in self.again and self.again[name].is_slower_again()]
        ratios = [self.all_runs(name).ratio() for name in self.first]
        self.mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))

    def all_runs(self, name):
        return self.first[name] + self.again.get(name, Runs())

    def verdict(self, name):
        if name not in self.suspect:
            return ""
        if name not in self.again:
            return "to be run again"
        again = f"again {self.again[name].ratio():.2f}"
        return f"SLOWER, {again}" if name in self.slower else f"not slower, {again}"

    def failed(self):
        return bool(self.tests_again or self.slower or self.mean > ALL_SLOWER)

    def table(self):
        lines = ["| row | old s | new s | new/old | quartiles apart | CPU | requests | |", "|---|---:|---:|---:|---:|---:|---:|---|"]
        for name, runs in self.first.items():
            old, new = (statistics.median(values) for values in zip(*runs.values("seconds"), strict=True))
            cpu = runs.ratio("cpu_s")
            asked = [f"{statistics.median(values):.0f}" for values in zip(*runs.values("requests"), strict=True)]
            cells = [
                name,
                f"{old:.3f}",
                f"{new:.3f}",
                f"{runs.ratio():.2f}",
                f"{100 * runs.spread():.0f} %",
                f"{cpu:.2f}" if cpu else "",
                " -> ".join(asked) if len(set(asked)) > 1 else "".join(asked[:1]),
                self.verdict(name),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        pairs = len(next(iter(self.first.values())).old)
        lines.append("")
        lines.append(f"{pairs} pairs of runs; geometric mean of all rows: {self.mean:.3f} (limit {ALL_SLOWER})")
        if self.slower:
            lines.append(f"slower: {', '.join(self.slower)}")
        return "\n".join(lines)


# --- Self-test -----------------------------------------------------------------------------


def expect(found, expected):
    if found != expected:
        raise SystemExit(f"self-test: {found!r} where {expected!r} is right")


def judged(first, again=None):
    """A judgement of {row: [(old, new), ...]}."""
    with tempfile.TemporaryDirectory() as folder:
        for phase, rows in (("first", first), ("again", again or {})):
            for number in range(max((len(pairs) for pairs in rows.values()), default=0)):
                for side in (0, 1):
                    path = os.path.join(folder, f"{phase}.{number + 1:02}.{('old', 'new')[side]}")
                    with open(path, "w", encoding="utf-8") as file:
                        for name, pairs in rows.items():
                            row = {"name": name, "test": name[0], "seconds": pairs[number][side], "cpu_s": 0}
                            file.write(json.dumps(row) + "\n")
        judgement = Judgement(folder)
        judgement.table()
        return judgement


def outcome(first, again=None):
    judgement = judged(first, again)
    return judgement.tests_again, judgement.slower, judgement.failed()


def self_test():
    calm = {f"x{n}": [(1, 1)] * 7 for n in range(9)}
    expect(outcome(calm), ([], [], False))
    # Paired: the machine is slow for both sides of some pairs.
    expect(outcome(calm | {"y": [(n, n * 1.09) for n in range(1, 8)]}), ([], [], False))
    expect(outcome(calm | {"y": [(n, n * 1.11) for n in range(1, 8)]}), (["y"], [], True))
    # One bad pair is no median.
    expect(outcome(calm | {"y": [(1, 1)] * 4 + [(1, 5)] * 3}), ([], [], False))
    slow = calm | {"y": [(1, 1.2)] * 7}
    expect(outcome(slow, {"y": [(1, 1.09)] * 8}), ([], [], False))
    expect(outcome(slow, {"y": [(1, 1.11)] * 8}), ([], ["y"], True))
    spread = [1, 1, 1, 1.2, 1.2, 1.2, 1.3, 1.3]
    expect(outcome(slow, {"y": [(old, old * 1.2) for old in spread]}), ([], [], False))
    expect(outcome(slow, {"y": [(old, old * 1.26) for old in spread]}), ([], ["y"], True))
    # Short rows by their difference.
    expect(outcome(calm | {"y": [(0.09, 0.109)] * 7}), ([], [], False))
    expect(outcome(calm | {"y": [(0.09, 0.111)] * 7}), (["y"], [], True))
    expect(outcome(calm | {"y": [(0.1, 0.111)] * 7}), (["y"], [], True))
    # Every row within its limit, all together not.
    expect(outcome({f"x{n}": [(1, 1.04)] * 7 for n in range(9)}), ([], [], False))
    expect(outcome({f"x{n}": [(1, 1.06)] * 7 for n in range(9)}), ([], [], True))
    expect(round(judged({"x": [(1, 2)], "y": [(2, 1)]}).mean, 6), 1.0)
    # The mean takes what a row did in all its runs.
    expect(round(judged({"x": [(1, 1.2)] * 7}, {"x": [(1, 1)] * 8}).mean, 6), 1.0)
    return 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) == 2 and arguments[0] == "--again":
        print(" ".join(Judgement(arguments[1]).tests_again))
        return 0
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    judgement = Judgement(arguments[0])
    print(judgement.table())
    return int(judgement.failed())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
