#!/usr/bin/env python3
"""What part of the library's lines the tests of a build have reached.

    python3 tests/coverage.py BUILD LEAST [--lines]

BUILD is a build folder of the preset `coverage` in which tests have run.  Prints
each file, the worst first, and all of the four folders; ends with 1 when that is
below LEAST percent.  --lines prints the lines that were not reached.

A line counts once, whatever number of objects it is compiled into; a line of a
header is reached when it is in any of them.
"""
import collections
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = ("fileio", "buffer", "index", "storage")


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
            ["gcov", "--json-format", "--stdout", os.path.abspath(path)],
            check=True, cwd=build, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for text in out.stdout.splitlines():
            yield json.loads(text)


def reached(build):
    """File -> line -> whether it was reached."""
    files = collections.defaultdict(dict)
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
    return files


def main():
    build, least = sys.argv[1], float(sys.argv[2])
    files = reached(build)
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
    if share < least:
        print(f"less than {least}% of the lines were reached")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
