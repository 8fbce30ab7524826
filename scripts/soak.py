"""The loop of scripts/soak, which sets up the machine and says how it is called.

A subject runs seeds in batches and yields a report for each: an object with `first`, `last`,
`seconds`, `findings` (each with seed, signature, known, count), and counts: numbers, or objects of
numbers by kind; words are left out. A program of the repository's own prints such objects itself: see `Program`.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

import proofs

# Rows are added when a batch ends and so many seconds have passed since the last: with batches
# of ten minutes at most, there is one every twenty.
ROW_SECONDS = 600
# A program's batch: what is lost when the run is stopped.
LONGEST_BATCH = 60

# A time without end, in seeds.
ENDLESS = 1_000_000_000


class CannotRun(Exception):
    """The subject could not be run at all: nothing of it is recorded."""


class Stopped(Exception):
    """Somebody asked for an end: what was finished is recorded."""


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


class Program:
    """A program of the tests that draws by seed itself, called as

        EXE soak --seed S --seeds N --for SECONDS OPTIONS --json

    It prints a report a line for each finished batch, the seeds in order, and exits with 0, or with
    1 if something was found that is not known.
    """

    most_bad_batches = None

    def __init__(self, example, features, options, again):
        """`example`: its name as cargo knows it. `again`: the arguments that show one seed."""
        self.cargo = ["--locked", "--release", "--example", example, "--no-default-features", "--features", features]
        self.example, self.options, self.again = example, options, again

    def build(self):
        command = ["cargo", "build", "--message-format=json-render-diagnostics", *self.cargo]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise CannotRun(f"{shlex.join(command)} failed")
        messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        built = [message for message in messages if message.get("target", {}).get("name") == self.example]
        found = [message["executable"] for message in built if message.get("executable")]
        if not found:
            raise CannotRun(f"cargo built no {self.example}")
        self.executable = found[-1]

    def chosen(self, asked):
        return [word for name in self.options for value in asked[name] for word in (f"--{name}", str(value))]

    def command(self, seed, seeds, seconds, asked):
        limits = ["--seed", str(seed), "--seeds", str(seeds), "--for", str(max(1, round(seconds)))]
        return [self.executable, "soak", *limits, *self.chosen(asked), "--json"]

    def batches(self, seed, seeds, seconds, asked):
        command = self.command(seed, seeds or ENDLESS, min(seconds, LONGEST_BATCH), asked)
        with running(command, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                yield json.loads(line)
            code = child.wait()
        if code not in (0, 1):
            raise CannotRun(f"{shlex.join(command)} ended with {code}")

    def repeat(self, seed, asked):
        words = [*self.again, "--seed", str(seed), *self.chosen(asked)]
        return shlex.join(["cargo", "run", *self.cargo, "--", *words])


class Suite:
    """Tests of nextest that take their seed from the environment; a batch is one seed."""

    options = ("operations",)
    # When so many in a row fail, the machine is ill, or the code; either way, more of the same
    # says nothing.
    most_bad_batches = 5

    def __init__(self, program, tests, count, seed, operations, default, kinds=None):
        """`tests`: the pattern of their names, `count` of them. `seed` and `operations`: the variables
        of the environment, and how many operations a test makes by `default`. `kinds`: a variable
        and its values, which seeds take in turn."""
        self.program, self.tests, self.count = program, tests, count
        self.seed, self.operations, self.default, self.kinds = seed, operations, default, kinds

    def arguments(self):
        return ["--locked", "--test", self.program, "-E", f"test(/{self.tests}/)"]

    def build(self):
        command = ["cargo", "nextest", "run", "--no-run", *self.arguments()]
        if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0:
            raise CannotRun(f"{shlex.join(command)} failed")

    def made(self, asked):
        return asked["operations"][-1] if asked["operations"] else self.default

    def settings(self, seed, asked):
        settings = {self.seed: str(seed), self.operations: str(self.made(asked))}
        if self.kinds:
            variable, values = self.kinds
            settings[variable] = values[seed % len(values)]
        return settings

    def batches(self, seed, seeds, seconds, asked):
        began = time.monotonic()
        settings = self.settings(seed, asked)
        # Short, because the path of a socket may not exceed 108 bytes.
        with tempfile.TemporaryDirectory(prefix="pfs.", dir="/tmp", ignore_cleanup_errors=True) as lab:
            left = lab_environment(lab) | settings
            log = os.path.join(lab, "output")
            try:
                with open(log, "w", encoding="utf-8") as file:
                    command = ["cargo", "nextest", "run", "--no-fail-fast", *self.arguments()]
                    with running(command, stdout=file, stderr=file, env=os.environ | left) as child:
                        code = child.wait()
            finally:
                clean = nothing_left(left)
            with open(log, encoding="utf-8", errors="replace") as file:
                output = file.read()
        failed, run = nextest_results(output)
        if code not in (0, 100) or run != self.count:
            sys.stderr.write(output[-4000:])
            raise CannotRun(f"nextest ended with {code} after {run} tests; there are {self.count}")
        if code == 100 and not failed:
            failed = ["a test failed"]
        if not clean:
            failed.append("a process or a mount was left behind")
        if failed:
            say(f"the output of seed {seed} is in {kept(self.program, seed, output)}")
        report = {"first": seed, "last": seed, "seconds": time.monotonic() - began, "findings": []}
        report["operations"] = self.made(asked) * max(0, self.count - len(failed))
        if self.kinds:
            report[settings[self.kinds[0]]] = 1
        for name in failed:
            report["findings"].append({"seed": seed, "signature": name, "known": False, "count": 1})
        yield report

    def repeat(self, seed, asked):
        words = [f"{name}={value}" for name, value in self.settings(seed, asked).items()]
        return " ".join([*words, shlex.join(["cargo", "nextest", "run", *self.arguments()])])


SUBJECTS = {
    "simulator": Program("simulate", "proof", ("profile", "only", "without", "cut"), ["run"]),
    "fsx": Suite(
        "heavy",
        "^suites::fsx_",
        4,
        "PRIVICOREFS_FSX_SEED",
        "PRIVICOREFS_FSX_OPS",
        5000,
        ("PRIVICOREFS_FSX_DURABILITY", ["local", "fsync"]),
    ),
    "differential": Suite(
        "differential",
        "^a_(fresh_course|course_over_split|course_that_keeps)",
        3,
        "PRIVICOREFS_DIFFERENTIAL_SEED",
        "PRIVICOREFS_DIFFERENTIAL_OPS",
        3000,
    ),
}


@contextlib.contextmanager
def running(command, **settings):
    """A child that is ended, by its number, if it is not waited for to its end."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, **settings)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def lab_environment(lab):
    return {"TMPDIR": lab, "LAB": lab, "PRIVICOREFS_TEST_REGISTRY": os.path.join(lab, "started")}


def nothing_left(environment):
    """Ends what the tests started and left behind; whether there was nothing."""
    library = os.path.join(proofs.REPO, "scripts", "lib.sh")
    command = ["bash", "-c", 'source "$1"; nothing_left || exit 1', "soak", library]
    return subprocess.run(command, env=os.environ | environment, check=False).returncode == 0


def nextest_results(output):
    """The tests that failed, and how many ran."""
    failed = re.findall(r"^ +(?:FAIL|TIMEOUT|ABORT|SIG[A-Z0-9]+)[^\[\n]* \[.*\] +(?:\([^)]*\) +)?\S+ (\S+)$", output, re.M)
    summary = re.search(r"^ +Summary .* (\d+)(?:/\d+)? tests? run:", output, re.M)
    return sorted(set(failed)), int(summary[1]) if summary else 0


def kept(subject, seed, output):
    folder = os.path.join(target_folder(), "soak")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{subject}-{seed}.log")
    with open(path, "w", encoding="utf-8") as file:
        file.write(output)
    return path


def target_folder():
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"]
    return json.loads(subprocess.check_output(command, cwd=proofs.REPO))["target_directory"]


class Collected:
    """Reports that are not in a row yet."""

    def __init__(self, subject):
        self.subject, self.since = subject, time.monotonic()
        self.clear()

    def clear(self):
        self.first = self.last = None
        self.seconds, self.counts, self.findings = 0.0, {}, {}

    def add(self, report):
        first, last = report.pop("first"), report.pop("last")
        if self.first is None:
            self.first = first
        elif first != self.last + 1:
            raise CannotRun(f"a batch begins with seed {first} after seed {self.last}")
        self.last = last
        self.seconds += report.pop("seconds")
        for finding in report.pop("findings"):
            key = (proofs.plain(finding["signature"]), bool(finding["known"]))
            seed, count = self.findings.get(key, (finding["seed"], 0))
            self.findings[key] = (seed, count + finding["count"])
        for name, value in report.items():
            by_kind = {f"{name} {kind}": count for kind, count in value.items()} if isinstance(value, dict) else {name: value}
            for kind, count in by_kind.items():
                if isinstance(count, str):
                    continue
                kind = proofs.plain(kind.replace(",", " "))
                self.counts[kind] = self.counts.get(kind, 0) + count

    def row(self, commit, note):
        found = [proofs.Finding(sig, seed, n, known) for (sig, known), (seed, n) in self.findings.items()]
        found.sort(key=lambda finding: (finding.known, finding.signature))
        return proofs.Row(self.subject, commit, self.first, self.last, self.seconds / 60, self.counts, found, note)


class Soak:
    """One run of this script."""

    def __init__(self, subject, name, asked, record, path):
        self.subject, self.name, self.asked = subject, name, asked
        self.record, self.path = record, path
        self.title = " ".join([name, *(f"--{key} {value}" for key in subject.options for value in asked[key])])
        self.collected = Collected(self.title)
        self.seeds_run, self.new_findings, self.bad_batches = 0, 0, 0

    def check_tree(self):
        changes = proofs.uncommitted() if self.record else ""
        if changes:
            raise CannotRun(f"the tree has uncommitted changes: commit them, or use --no-record:\n{changes}")

    def run(self, seed, seeds, seconds):
        """Ends when `seeds` or `seconds` are over; None is without end."""
        self.check_tree()
        self.commit = proofs.commit_of_code()
        self.subject.build()
        self.collected.since = time.monotonic()
        end = self.collected.since + seconds if seconds else float("inf")
        try:
            while time.monotonic() < end and (not seeds or self.seeds_run < seeds):
                left = seeds - self.seeds_run if seeds else None
                before = self.seeds_run
                for report in self.subject.batches(seed, left, end - time.monotonic(), self.asked):
                    seed = self.take(report)
                if self.seeds_run == before:
                    raise CannotRun("a batch ended without a seed")
        except (Stopped, KeyboardInterrupt):
            say("stopped")
        finally:
            # Whoever asks twice still gets the row of what was finished.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            self.flush()
        return 1 if self.new_findings else 0

    def take(self, report):
        """Adds a finished batch to the rows; the seed after it."""
        self.check_code()
        first, last = report["first"], report["last"]
        new = [finding for finding in report["findings"] if not finding["known"]]
        known = len(report["findings"]) - len(new)
        say(f"{self.title}: seeds {first}-{last} in {report['seconds']:.0f} s, {known} known findings, {len(new)} NEW")
        for finding in new:
            say(f"  NEW, seed {finding['seed']}: {finding['signature']}")
            say(f"  again: {self.subject.repeat(finding['seed'], self.asked)}")
        self.seeds_run += last - first + 1
        self.new_findings += len(new)
        self.bad_batches = self.bad_batches + 1 if new else 0
        self.collected.add(report)
        if time.monotonic() - self.collected.since >= ROW_SECONDS:
            self.flush()
        if self.bad_batches == self.subject.most_bad_batches:
            say(f"{self.bad_batches} batches in a row found something new: this is enough")
            raise Stopped
        return last + 1

    def check_code(self):
        """The batch that has just ended ran on the commit that the row will name."""
        if self.record and (proofs.uncommitted() or proofs.commit_of_code() != self.commit):
            raise CannotRun("the sources changed under this run: its last batch is not recorded")

    def flush(self):
        """What is collected becomes a row."""
        self.collected.since = time.monotonic()
        if self.collected.first is None or not self.record:
            return
        with signals_blocked(), proofs.alone("proofs"):
            written = proofs.Proofs(self.path)
            earlier = [row for row in written.rows if row.subject == self.title]
            folders = proofs.Folders(written.folders[self.name])
            written.append(self.collected.row(self.commit, proofs.small_changes(earlier, folders, self.commit)))
            self.collected.clear()
        say(f"a row was added to {os.path.relpath(self.path)}")


@contextlib.contextmanager
def signals_blocked():
    wanted = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop(_number, _frame):
    raise Stopped


def duration(text):
    found = re.fullmatch(r"(\d+)([smh])", text)
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError("a time is written 90s, 20m or 8h")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def number(text):
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError("a number from 1 on")
    return int(text)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="scripts/soak")
    parser.add_argument("subject", choices=SUBJECTS)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--for", dest="seconds", type=duration)
    length.add_argument("--seeds", type=number)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--proofs", default=proofs.PROOFS)
    parser.add_argument("--operations", type=number, action="append", default=[])
    for name in ("only", "without", "cut", "profile"):
        parser.add_argument(f"--{name}", action="append", default=[])
    asked = parser.parse_args(arguments)
    options = {name: getattr(asked, name) for name in ("operations", "only", "without", "cut", "profile")}
    for name, values in options.items():
        if values and name not in SUBJECTS[asked.subject].options:
            parser.error(f"{asked.subject} has no --{name}")
    return asked, options


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    try:
        if arguments[:1] == ["--status"]:
            proofs.status(proofs.Proofs(proofs.PROOFS), arguments[1:])
            return 0
        asked, options = parse(arguments)
        kept = proofs.Proofs(asked.proofs)
        if asked.subject not in kept.folders:
            raise CannotRun(f"{asked.proofs} does not say which folders {asked.subject} tests")
        seed = asked.seed if asked.seed is not None else kept.next_seed(asked.subject)
        signal.signal(signal.SIGTERM, stop)
        # nohup has it ignored.
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, stop)
        run = Soak(SUBJECTS[asked.subject], asked.subject, options, not asked.no_record, asked.proofs)
        # Two that both take the next seed would run the same.
        shared = asked.no_record or asked.seed is not None
        with contextlib.nullcontext() if shared else proofs.alone(f"soak-{asked.subject}", wait=False):
            return run.run(seed, asked.seeds, asked.seconds)
    except BlockingIOError:
        print(f"error: scripts/soak {asked.subject} runs here already", file=sys.stderr)
        return 2
    except (CannotRun, proofs.Malformed, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


# --- Self-test -----------------------------------------------------------------------------

NEXTEST = """
        PASS [   9.1s] (1/4) privicorefs::heavy suites::fsx_across_parts
        FAIL [  19.7s] (2/4) privicorefs::heavy suites::fsx_on_one_file
     TIMEOUT [> 600.0s] (3/4) privicorefs::heavy suites::fsx_on_four_files_at_once
     SIGSEGV [   0.1s] privicorefs::heavy suites::fsx_with_remounts_without_a_cache
------------
     Summary [  20.1s] 4 tests run: 1 passed, 2 failed, 1 timed out, 30 skipped
        FAIL [  19.7s] (2/4) privicorefs::heavy suites::fsx_on_one_file
"""

NONE_ASKED = {"operations": [], "only": [], "without": [], "cut": [], "profile": []}


class Sample:
    """A subject that finds something new under every seed of `new`."""

    options = ("only",)
    most_bad_batches = 5

    def __init__(self, new=(), at_seed=lambda seed: None):
        self.new, self.at_seed = new, at_seed

    def build(self):
        pass

    def batches(self, seed, seeds, seconds, asked):
        self.at_seed(seed)
        finding = {"seed": seed, "signature": "lost; a | file", "known": False, "count": 1}
        yield {
            "first": seed,
            "last": seed,
            "seconds": 60,
            "findings": [finding] * (seed in self.new),
            "steps": 10,
            "profile": "all",
            "fates": {"crash": 2, "clone, live": 1},
        }

    def repeat(self, seed, asked):
        return f"again {seed}"


def raising(error):
    def raised(_seed):
        raise error

    return raised


def soaked(path, subject, seeds, asked=None, record=True, seed=None):
    run = Soak(subject, "simulator", asked or NONE_ASKED, record, path)
    start = proofs.Proofs(path).next_seed("simulator") if seed is None else seed
    code = run.run(start, seeds, None)
    return code, [row.render() for row in proofs.Proofs(path).rows]


def refused(path, **how):
    try:
        soaked(path, **how)
    except CannotRun:
        return [row.last for row in proofs.Proofs(path).rows]
    raise SystemExit(f"self-test: not refused: {how}")


def test_loop(path):
    row = "| simulator | abcdef0 | {} | {} | {} | {} |  |"
    counts = "steps 30, fates crash 6, fates clone live 3"
    first = row.format("0-2", "3.0", counts, "none")
    proofs.expect(soaked(path, Sample(), 3), (0, [first]))
    finding = "NEW 1x, seed 4: lost, a / file"
    second = row.format("3-5", "3.0", counts, finding)
    proofs.expect(soaked(path, Sample({4}), 3), (1, [first, second]))
    only = NONE_ASKED | {"only": ["crash"]}
    code, rows = soaked(path, Sample(), 3, only)
    proofs.expect((code, rows[2][:36]), (0, "| simulator --only crash | abcdef0 |"))
    proofs.expect(soaked(path, Sample(), 2, record=False), (0, rows))
    # Nothing is recorded twice, or for a batch that did not end.
    stops = Sample(at_seed=lambda seed: raising(Stopped())(seed) if seed == 11 else None)
    proofs.expect(soaked(path, stops, None)[1][3], row.format("9-10", "2.0", "steps 20, fates crash 4, fates clone live 2", "none"))
    code, rows = soaked(path, Sample(range(100)), None)
    proofs.expect((code, len(rows), proofs.Proofs(path).rows[4].last), (1, 5, 15))


def test_refusals(path):
    rows = [row.last for row in proofs.Proofs(path).rows]

    def change(seed):
        if seed == 17:
            proofs.commit_of_code = lambda: "0000000"

    proofs.expect(refused(path, subject=Sample(at_seed=change), seeds=5), [*rows, 16])
    proofs.commit_of_code = lambda: "abcdef0"
    proofs.uncommitted = lambda: " M src/lib.rs"
    proofs.expect(refused(path, subject=Sample(), seeds=5), [*rows, 16])
    proofs.uncommitted = lambda: ""
    proofs.expect(refused(path, subject=Sample(at_seed=raising(CannotRun("no"))), seeds=5), [*rows, 16])


def test_program(folder):
    """A program that reports two batches, and dies under seed 9."""
    text = """#!/usr/bin/env python3
import json, sys
words = sys.argv[1:]
seed = int(words[words.index("--seed") + 1])
assert words[0] == "soak" and words[-1] == "--json" and "--seeds" in words and "--for" in words
for first in (seed, seed + 5):
    print(json.dumps({"first": first, "last": first + 4, "seconds": 1, "findings": [], "asked": words.count("crash")}), flush=True)
sys.exit(3 if seed == 9 else 0)
"""
    program = Program("sample", "proof", ("only",), ["run"])
    program.executable = os.path.join(folder, "sample")
    with open(program.executable, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(program.executable, 0o755)
    asked = NONE_ASKED | {"only": ["crash", "clone"]}
    reports = list(program.batches(4, 10, 5, asked))
    proofs.expect(program.repeat(4, asked).split(" -- ")[1], "run --seed 4 --only crash --only clone")
    proofs.expect([(report["first"], report["last"], report["asked"]) for report in reports], [(4, 8, 1), (9, 13, 1)])
    try:
        list(program.batches(9, 10, 5, asked))
    except CannotRun:
        pass
    else:
        raise SystemExit("self-test: a program that died was believed")


def self_test():
    names = [f"suites::fsx_{name}" for name in ("on_four_files_at_once", "on_one_file", "with_remounts_without_a_cache")]
    proofs.expect(nextest_results(NEXTEST), (names, 4))
    proofs.expect(nextest_results("error: no such test"), ([], 0))
    proofs.expect([duration("90s"), duration("8h")], [90, 28800])
    # Each subject of the table here is in the table of the file.
    proofs.expect(set(SUBJECTS) - set(proofs.Proofs(proofs.PROOFS).folders), set())
    proofs.uncommitted, proofs.commit_of_code = (lambda: ""), (lambda: "abcdef0")
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w", encoding="utf-8") as nowhere:
        path = os.path.join(folder, "proofs.md")
        with open(path, "w", encoding="utf-8") as file:
            table = f"{proofs.SUBJECTS_HEADER}\n|---|\n| simulator | a script | `src` |\n"
            file.write(f"{table}\n{proofs.ROWS_HEADER}\n|---|\n")
        with contextlib.redirect_stderr(nowhere):
            test_loop(path)
            test_refusals(path)
        test_program(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
