#!/usr/bin/env python3
"""What part of the library's lines the tests of a build have reached, and which
branches of the code that keeps data none of them has taken.

    python3 tests/coverage.py BUILD LEAST MOST [--lines] [--branches]

BUILD is a build folder of the preset `coverage` in which tests have run.  Prints
each file, the worst first, and all of the four folders; then of the files of log,
recovery, superblock, extents and space (tests/branches_of.txt) how many branches were
not taken.  Ends with 1 when less than LEAST percent of the lines were reached, or more
than MOST branches were neither taken nor explained in tests/branches.txt, or when that
speaks of none that there is.  --lines prints the lines that were not reached,
--branches the branches.

A line counts once, whatever number of objects it is compiled into; a line of a
header is reached when it is in any of them.  Asserts are not counted.
"""
import collections
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = ("fileio", "buffer", "index", "storage")
EXPLAINED = os.path.join(ROOT, "tests", "branches.txt")
with open(os.path.join(ROOT, "tests", "branches_of.txt"), encoding="utf-8") as names:
    BRANCHES_OF = tuple(line.strip() for line in names if not line.startswith("#"))


def data_files(build):
    objects = os.path.join(build, "CMakeFiles", "bftree_objects.dir")
    for folder in FOLDERS:
        where = os.path.join(objects, folder)
        for name in sorted(os.listdir(where)):
            # Of a file that nothing has entered there are notes only.
            if name.endswith(".gcno"):
                yield os.path.join(where, name)


def reports(build):
    """What gcov says of each object."""
    for path in data_files(build):
        out = subprocess.run(
            ["gcov", "--branch-probabilities", "--json-format", "--stdout",
             os.path.abspath(path)],
            check=True, cwd=build, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for text in out.stdout.splitlines():
            yield json.loads(text)


def reached(build):
    """File -> line -> whether it was reached; and of the files of BRANCHES_OF
    (file, line number, function) -> of each branch whether it was taken."""
    files = collections.defaultdict(dict)
    branches = {}
    for report in reports(build):
        for part in report["files"]:
            path = os.path.join(report["current_working_directory"], part["file"])
            name = os.path.relpath(os.path.realpath(path), ROOT)
            if name.split(os.sep)[0] not in FOLDERS:
                continue
            lines = files[name]
            for line in part["lines"]:
                number = line["line_number"]
                lines[number] = lines.get(number, False) or line["count"] > 0
                if name in BRANCHES_OF and line["branches"]:
                    branches[name, number, line.get("function_name", "")] = [
                        branch["count"] > 0 for branch in line["branches"]]
    return files, branches


def print_lines(files):
    """The share of all that was reached, in percent."""
    rows = []
    for name, lines in files.items():
        missed = sorted(number for number, hit in lines.items() if not hit)
        rows.append((1 - len(missed) / len(lines), name, len(lines), missed))
    for share, name, count, missed in sorted(rows):
        print(f"{100 * share:6.1f}%  {count - len(missed):5} of {count:5}  {name}")
        if "--lines" in sys.argv:
            print("         " + " ".join(map(str, missed)))
    for folder in FOLDERS + ("",):
        of = [row for row in rows if row[1].startswith(folder)]
        count = sum(row[2] for row in of)
        missed = sum(len(row[3]) for row in of)
        share = 100 * (1 - missed / count)
        print(f"{share:6.2f}%  {count - missed:5} of {count:5}  {folder or 'all'}")
    return share


def explained():
    """"file | function | the line": why no test takes a branch there."""
    reasons = {}
    name = None
    with open(EXPLAINED, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("    "):
                reasons[name] += line.strip()
            elif line.strip() and not line.startswith("#"):
                name = line.strip()
                reasons[name] = ""
    return reasons


def print_branches(branches):
    """How many are neither taken nor explained, and how many explanations are of
    nothing."""
    reasons = explained()
    there = set()
    left = 0
    for name in BRANCHES_OF:
        with open(os.path.join(ROOT, name), encoding="utf-8") as source:
            text = source.read().split("\n")
        counts = collections.Counter()
        for (file, number, function), taken in sorted(branches.items()):
            line = text[number - 1].strip() if file == name else "assert("
            if line.startswith("assert("):
                continue
            missed = taken.count(False)
            what = f"{name} | {function} | {line}"
            there.add(what)
            counts["all"] += len(taken)
            counts["explained" if what in reasons else "left"] += missed
            if missed and what not in reasons and "--branches" in sys.argv:
                print(f"{name}:{number}: {missed} of {len(taken)}: {what}")
        left += counts["left"]
        print(f"{counts['left']:4} of {counts['all']:4} branches not taken, "
              f"{counts['explained']} more explained: {name}")
    wrong = [what for what, why in reasons.items() if what not in there or not why]
    for what in wrong:
        print(f"explains nothing that there is: {what}")
    print(f"{left} branches are neither taken nor explained")
    return left, len(wrong)


def main():
    build, least, most = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    files, branches = reached(build)
    share = print_lines(files)
    left, wrong = print_branches(branches)
    if share < least:
        print(f"less than {least}% of the lines were reached")
    if left > most:
        print(f"more than {most} branches are left")
    return 1 if share < least or left > most or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
