#!/usr/bin/env python3
"""Small changes to the code that keeps data, each of which some test must notice.

    python3 tests/mutation/mutate.py [--hours H] [--file FILE] [--again | --list]

A mutant is one change of one token or statement of a file below. It is built in a
copy of the tree below build/mutation, and the tests of its kind run until one
fails, which kills it. What became of each mutant is kept there, so that the next
run goes on, for as long as the library and the tests of its kind are what they were;
the order is drawn from the mutants themselves, so that a slice is a
sample of all. One that survives is to be killed by a better test, or explained in
explained.txt; until then it is tried again by each run, once all others have been,
or, with --again, alone. An explanation that speaks of no mutant of now is an error.

Exit status: 0; 1 if any that was tried survives unexplained, or an explanation speaks
of none; 2 if tests fail without a change.
"""

import argparse
import filecmp
import functools
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOME = os.path.join(ROOT, "build", "mutation")
SOURCE = os.path.join(HOME, "source")
BUILD = os.path.join(HOME, "build")
SCRATCH = os.path.join(HOME, "scratch")
RESULTS = os.path.join(HOME, "results.tsv")
EXPLAINED = os.path.join(ROOT, "tests", "mutation", "explained.txt")

LOG_TESTS = ["wal_test", "wal_edges_test", "wal_recovery_test", "wal_stall_test",
             "wal_fault_test", "wal_crash_test"]
FEED_TESTS = ["wal_feed_test", "feed_test", "feed_end_test"]
PAGE_TESTS = ["extent_test", "extent_pool_test", "superblock_test", "space_test",
              "pagefile_crash_test"]
ENGINE_TESTS = [
    "redo_test", "forged_log_test", "bad_input_test", "open_test", "engine_test",
    "recovery_crash_test", "sequence_crash_test",
    "damage_sweep_test", "staged_test", "delta_list_test", "kill_test",
]
# File: the tests that are to notice, those first that are the likeliest and soonest.
FILES = {
    "fileio/wal.c": LOG_TESTS + ENGINE_TESTS,
    "fileio/wal_scan.c": LOG_TESTS + FEED_TESTS + ENGINE_TESTS + ["salvage_log_test",
                                                                  "read_only_test"],
    "fileio/wal_segment.c": LOG_TESTS + FEED_TESTS + ENGINE_TESTS + ["salvage_log_test",
                                                                     "read_only_test"],
    "fileio/wal_salvage.c": ["wal_edges_test", "wal_fault_test", "salvage_log_test",
                             "salvage_test"],
    "fileio/wal_feed.c": FEED_TESTS + ["feed_crash_test"],
    "fileio/wal_export.c": ["wal_feed_test", "wal_fault_test", "backup_test",
                            "backup_race_test", "backup_crash_test"],
    "fileio/superblock.c": PAGE_TESTS + ENGINE_TESTS + ["read_only_test", "salvage_test"],
    "fileio/extent.c": PAGE_TESTS + ["ahead_test", "clean_test"] + ENGINE_TESTS +
                       ["database_format1_test"],
    "fileio/extent_pool.c": PAGE_TESTS + ENGINE_TESTS + ["database_format1_test"],
    "fileio/extent_scan.c": ["extent_test", "extent_pool_test", "salvage_test", "clean_test"],
    "fileio/pagefile.c": PAGE_TESTS + ENGINE_TESTS,
    "index/recover.c": ENGINE_TESTS + ["large_value_test", "backup_test", "bulk_test",
                                       "tree_change_crash_test", "bulk_crash_test",
                                       "range_crash_test", "feed_test", "txn_test"],
    "index/frame.c": ["frame_test"] + ENGINE_TESTS + ["large_value_test", "feed_test"],
}

# What is changed into what; the operators stand alone between blanks in our style.
TOKENS = [
    (" < ", " <= "), (" <= ", " < "), (" > ", " >= "), (" >= ", " > "),
    (" == ", " != "), (" != ", " == "), (" && ", " || "), (" || ", " && "),
    (" + ", " - "), (" - ", " + "), (" += ", " -= "), (" -= ", " += "),
    (" & ", " | "), (" | ", " & "), ("++", "--"), ("true", "false"), ("false", "true"),
    ("break;", "continue;"), ("continue;", "break;"),
]
NUMBER = re.compile(r"(?<![\w.])(\d+)(?![\w.xX])")
NEGATION = re.compile(r"!(?=[A-Za-z_(])")
CALL = re.compile(r"^\s+(?:\(void\))?[a-z_][\w>.-]*\(.*\);$")
ASSIGNMENT = re.compile(r"^\s+[a-z_][\w>.\[\]-]* [-+|&]?= [^;]*;$")


def masked(text):
    """TEXT with comments, strings and characters blanked, of the same length."""
    pattern = r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def skipped(line):
    """No mutants: what only checks, declares, plants faults, which there are in other
    builds, or is for the preprocessor."""
    text = line.strip()
    return (
        not line.startswith("    ")  # outside functions
        or text.startswith(("#", "assert(", "PARK(", "_Static_assert", "return bfti_fail("))
        or "memory_order" in text
        or "bfti_fault_on(" in text
        or "planted_" in text
    )


def mutants_of(file):
    """(line number, column, old, new, what) of each mutant of FILE."""
    with open(os.path.join(ROOT, file), encoding="utf-8") as source:
        code = masked(source.read()).split("\n")
    inside = False
    for number, line in enumerate(code):
        if line == "{":
            inside = "planted_" not in " ".join(code[number - 3 : number])
        elif line == "}":
            inside = False
        if not inside or skipped(line):
            continue
        for old, new in TOKENS:
            for found in re.finditer(re.escape(old), line):
                at = found.start()
                word = old[0].isalpha()
                if word and (line[at - 1].isalnum() or line[at - 1] == "_"):
                    continue
                yield number, at, old, new, f"{old.strip()} to {new.strip()}"
        for found in NUMBER.finditer(line):
            new = str(int(found.group()) + 1)
            yield number, found.start(), found.group(), new, f"{found.group()} to {new}"
        for found in NEGATION.finditer(line):
            yield number, found.start(), "!", "", "! gone"
        if CALL.match(line) or (ASSIGNMENT.match(line) and number > 0):
            yield number, 0, line, "", "statement gone"


def name_of(file, lines, mutant):
    """As explained.txt and the results have it; the Nth of its kind in a line is
    told by its column."""
    number, column, _, _, what = mutant
    twins = lines[: number + 1].count(lines[number])
    return f"{file} | {what} | {lines[number].strip()} | {column}.{twins}"


def all_mutants(only):
    found = []
    for file in FILES:
        if only and file != only:
            continue
        with open(os.path.join(ROOT, file), encoding="utf-8") as source:
            lines = source.read().split("\n")
        for mutant in mutants_of(file):
            found.append((name_of(file, lines, mutant), file, mutant))
    found.sort(key=lambda one: hashlib.sha256(one[0].encode()).digest())
    return found


def quietly(command, timeout=None):
    """Run it; False when it fails or takes too long."""
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=timeout, check=False, cwd=BUILD,
                              env=dict(os.environ, TMPDIR=SCRATCH)).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def make_copy():
    """What git knows of, as it is now. What is there already keeps its time and what
    was built of it; a mutant that an interrupted run left does not."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True,
                            stdout=subprocess.PIPE).stdout.decode()
    paths = {path for path in listed.split("\0") if os.path.isfile(os.path.join(ROOT, path))}
    for folder, _, names in os.walk(SOURCE):
        for name in names:
            if os.path.relpath(os.path.join(folder, name), SOURCE) not in paths:
                os.remove(os.path.join(folder, name))
    for path in paths:
        to = os.path.join(SOURCE, path)
        os.makedirs(os.path.dirname(to), exist_ok=True)
        if not os.path.isfile(to) or not filecmp.cmp(os.path.join(ROOT, path), to, False):
            shutil.copyfile(os.path.join(ROOT, path), to)
    os.makedirs(BUILD, exist_ok=True)
    shutil.rmtree(SCRATCH, ignore_errors=True)
    os.makedirs(SCRATCH)
    subprocess.run(["cmake", "-S", SOURCE, "-B", BUILD, "-G", "Ninja",
                    "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_C_FLAGS=-O1", "-DBFT_CHECK=2",
                    "-DBFT_TESTS=ON"], check=True, stdout=subprocess.DEVNULL)


def run_test(test, timeout):
    return quietly([os.path.join(BUILD, "tests", test)], timeout)


def measure(tests):
    """Seconds that each takes by itself, unchanged."""
    taken = {}
    for test in tests:
        if not quietly(["ninja", test]):
            sys.exit(f"{test} cannot be built")
        started = time.monotonic()
        if not run_test(test, 600):
            print(f"{test} fails without a change", file=sys.stderr)
            sys.exit(2)
        taken[test] = time.monotonic() - started
        print(f"{test}: {taken[test]:.1f} s", flush=True)
    return taken


def judge(file, taken):
    """What becomes of the mutant that the copy is now."""
    for test in FILES[file]:
        if not quietly(["ninja", test]):
            return "refused"  # by the compiler: no mutant
        if not run_test(test, 10 * taken[test] + 20):
            return f"killed by {test}"
    return "survived"


def try_one(file, mutant, taken):
    number, column, old, new, _ = mutant
    path = os.path.join(SOURCE, file)
    with open(path, encoding="utf-8") as source:
        text = source.read()
    lines = text.split("\n")
    line = lines[number]
    lines[number] = "" if column == 0 and new == "" else (
        line[:column] + new + line[column + len(old):])
    with open(path, "w", encoding="utf-8") as source:
        source.write("\n".join(lines))
    try:
        return judge(file, taken)
    finally:
        with open(path, "w", encoding="utf-8") as source:
            source.write(text)


def lines_of(path):
    try:
        with open(path, encoding="utf-8") as lines:
            return [line.rstrip("\n") for line in lines]
    except FileNotFoundError:
        return []


def explained():
    """Name, perhaps without the place: the reason."""
    reasons = {}
    name = None
    for line in lines_of(EXPLAINED):
        if line.startswith("    "):
            reasons[name] += " " + line.strip()
        elif line and not line.startswith("#"):
            name = line
            reasons[name] = ""
    return reasons


@functools.lru_cache(maxsize=None)
def digest_of(path):
    with open(path, "rb") as source:
        return hashlib.sha256(source.read()).hexdigest()


@functools.lru_cache(maxsize=None)
def state_of(file):
    """What a result of FILE's mutants depends on: the library, and the tests that were
    to notice. A result of any other state says nothing."""
    paths = [path for folder in ("fileio", "buffer", "index", "storage", "tests/support")
             for path in glob.glob(os.path.join(ROOT, folder, "*.[ch]"))]
    for test in FILES[file]:
        paths += glob.glob(os.path.join(ROOT, "tests", "*", test + ".c"))
    return hashlib.sha256("".join(
        os.path.relpath(path, ROOT) + digest_of(path)
        for path in sorted(paths)).encode()).hexdigest()[:16]


def known_results():
    """Of the present state: lines of a mutant's name, its state, and the result."""
    known = {}
    for line in lines_of(RESULTS):
        name, *rest = line.split("\t")
        if len(rest) == 2 and name.split(" | ")[0] in FILES and \
                rest[0] == state_of(name.split(" | ")[0]):
            known[name] = rest[1]
    return known


def is_explained(name, reasons):
    return name in reasons or name.rsplit(" | ", 1)[0] in reasons


def check_explanations(reasons):
    """How many say nothing, or speak of a mutant that there is not."""
    names = {name for name, _, _ in all_mutants(None)}
    names |= {name.rsplit(" | ", 1)[0] for name in names}
    wrong = [name for name, why in reasons.items() if name not in names or not why]
    for name in wrong:
        print(f"explains nothing that there is: {name}")
    return len(wrong)


def report(mutants, results, reasons):
    counts = {"killed": 0, "explained": 0, "survived": 0, "refused": 0}
    for name, _, _ in mutants:
        result = results.get(name, "").split(" ")[0]
        if result == "survived" and is_explained(name, reasons):
            result = "explained"
        if result:
            counts[result] += 1
        if result == "survived":
            print(f"survives: {name}")
    tried = counts["killed"] + counts["explained"] + counts["survived"]
    print(f"{tried} mutants of {len(mutants)} tried: {counts['killed']} killed, "
          f"{counts['explained']} explained, {counts['survived']} survive; "
          f"the compiler refused {counts['refused']} more")
    return counts


def tally(mutants, counts):
    """Of a thousand that the compiler takes: 1000 when all were tried, and none of them
    survives unexplained."""
    fine = counts["killed"] + counts["explained"]
    print(f"tally: ={1000 * fine // max(1, len(mutants) - counts['refused'])} "
          "mutants of a thousand")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1e9)
    parser.add_argument("--file", choices=FILES)
    parser.add_argument("--again", action="store_true", help="only those that survived")
    parser.add_argument("--list", action="store_true", help="name all mutants, and end")
    arguments = parser.parse_args()
    mutants = all_mutants(arguments.file)
    if arguments.list:
        for name, _, _ in mutants:
            print(name)
        return 0
    end = time.monotonic() + arguments.hours * 3600
    results = known_results()
    reasons = explained()
    left = [] if arguments.again else [one for one in mutants if one[0] not in results]
    left += [one for one in mutants
             if results.get(one[0]) == "survived" and not is_explained(one[0], reasons)]
    if left:
        make_copy()
        taken = measure(sorted({test for _, file, _ in left for test in FILES[file]}))
    for name, file, mutant in left:
        if time.monotonic() > end:
            break
        results[name] = try_one(file, mutant, taken)
        print(f"{results[name]}: {name}", flush=True)
        with open(RESULTS, "a", encoding="utf-8") as to:
            to.write(f"{name}\t{state_of(file)}\t{results[name]}\n")
    wrong = check_explanations(reasons)
    counts = report(mutants, results, reasons)
    if not arguments.file:
        tally(mutants, counts)
    return 1 if counts["survived"] or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
