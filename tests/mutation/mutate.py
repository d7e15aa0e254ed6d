#!/usr/bin/env python3
"""Small changes to the code that keeps data, each of which some test must notice.

    python3 tests/mutation/mutate.py [--hours H] [--jobs N] [--file FILE]
                                     [--patience S] [--again | --list]

A mutant is one change of one token or statement of a file below. The tests are built
once, in a copy of the tree below build/mutation, and take the library from a file:
so a mutant is one file compiled and one library linked. One of which the compiler
makes the same code is none. The tests that come to its line then run, those that
killed others of its function first, and then the shortest, until one fails, which
kills it.

What became of each mutant is kept there, so that the next run goes on: that it was
killed, for as long as its file, what all tests share, and the test that killed it are
what they were; that it survived, for as long as the library and all tests are. The order is
drawn from the mutants themselves, so that a slice is a sample of all. One that survives
is to be killed by a better test, or explained in explained.txt; until then it is tried
again by each run, once all others have been, or, with --again, alone. An explanation
that speaks of no mutant of now is an error. Most of the time goes to those that survive:
with --patience, tests of one mutant stop after S seconds, it is named as one that lives
so far, and a run without that decides.

Exit status: 0; 1 if any that was tried survives unexplained, or an explanation speaks
of none; 2 if a test fails without a change.
"""

import argparse
import collections
import concurrent.futures
import filecmp
import functools
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOME = os.path.join(ROOT, "build", "mutation")
SOURCE = os.path.join(HOME, "source")
BUILD = os.path.join(HOME, "build")
COVER = os.path.join(HOME, "cover")
LIBRARY = "libbftree_tested.so"
MEASURED = os.path.join(HOME, "measured.json")
RESULTS = os.path.join(HOME, "results.tsv")
EXPLAINED = os.path.join(ROOT, "tests", "mutation", "explained.txt")

FILES = (
    "fileio/wal.c", "fileio/wal_scan.c", "fileio/wal_segment.c", "fileio/wal_salvage.c",
    "fileio/wal_feed.c", "fileio/wal_export.c", "fileio/superblock.c", "fileio/extent.c",
    "fileio/extent_pool.c", "fileio/extent_shared.c", "fileio/extent_scan.c",
    "fileio/pagefile.c", "index/recover.c", "index/image_load.c", "index/frame.c",
)
# Where the tests are looked for, and what makes the longest of them short enough.
SUITES = ("unit", "golden", "fault", "crash", "fuzz", "model")
SHORTER = {"BFT_MODEL_OPS": "20000", "BFT_FUZZ_ROUNDS": "1"}
# A test that takes longer than this says nothing here.
LONGEST_S = 60

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
    text = lines[number].strip()
    twins = sum(line.strip() == text for line in lines[: number + 1])
    return f"{file} | {what} | {text} | {column}.{twins}"


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


def quietly(command, timeout=None, where=None, env=None, output=os.devnull):
    """Run it; False when it fails or takes too long. All that it started ends with it."""
    with open(output, "wb") as said, \
         subprocess.Popen(command, stdout=said, stderr=said,
                          cwd=where or BUILD, preexec_fn=os.setpgrp,
                          env=dict(os.environ, **(env or {}))) as process:
        try:
            return process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                pass


def make_copy():
    """What git knows of, as it is now. What is there already keeps its time and what
    was built of it."""
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


def build(jobs):
    os.makedirs(BUILD, exist_ok=True)
    subprocess.run(["cmake", "-S", SOURCE, "-B", BUILD, "-G", "Ninja",
                    "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_C_FLAGS=-O1", "-DBFT_CHECK=2",
                    "-DBFT_TESTS=ON", "-DBFT_TESTS_SHARED=ON",
                    "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"],
                   check=True, stdout=subprocess.DEVNULL)
    targets = [suite + "_tests" for suite in SUITES]
    subprocess.run(["ninja", "-C", BUILD, "-j", str(jobs), *targets], check=True,
                   stdout=subprocess.DEVNULL)


class Library:
    """How the library is made in the build, and variants of it: a file changed."""

    def __init__(self):
        with open(os.path.join(BUILD, "compile_commands.json"), encoding="utf-8") as said:
            commands = {os.path.relpath(one["file"], SOURCE): one["command"]
                        for one in json.load(said)}
        self.compiled = {file: shlex.split(commands[file]) for file in FILES}
        linked = subprocess.run(["ninja", "-C", BUILD, "-t", "commands", LIBRARY],
                                check=True, stdout=subprocess.PIPE).stdout.decode()
        self.linked = shlex.split(linked.strip().split("\n")[-1].removeprefix(": && ")
                                  .removesuffix(" && :"))

    def compile(self, file, source, to, *flags):
        """FILE with its text from SOURCE; false when the compiler refuses that."""
        command = list(self.compiled[file])
        command[command.index("-o") + 1] = to
        command[command.index("-c") + 1] = source
        folder = os.path.join(SOURCE, os.path.dirname(file))
        return quietly([*command, "-iquote", folder, *flags])

    def link(self, objects, to, *flags):
        """With OBJECTS, of each file its object, in the places of its own ones."""
        command = list(self.linked)
        for file, compiled in objects.items():
            built = self.compiled[file][self.compiled[file].index("-o") + 1]
            command[command.index(built)] = compiled
        command[command.index("-o") + 1] = to
        if not quietly([*command, *flags]):
            sys.exit(f"the library cannot be linked as {to}")


def programs():
    """Each test program's name: its source."""
    paths = [path for suite in SUITES
             for path in glob.glob(os.path.join(ROOT, "tests", suite, "*_test.c"))]
    return {os.path.basename(path)[:-2]: path for path in sorted(paths)}


def run_test(test, where, timeout, env, output=os.devnull):
    return quietly([os.path.join(BUILD, "tests", test)], timeout, where,
                   dict(SHORTER, TMPDIR=where, **env), output)


def fresh(*parts):
    path = os.path.join(HOME, *parts)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def lines_reached(test, data):
    """(file, line) of FILES that TEST reached, by the counts in folder DATA."""
    reached = set()
    for file in FILES:
        stem = os.path.join(COVER, file.replace("/", "_"))
        counts = data + stem + ".gcda"
        if not os.path.exists(counts):
            continue
        shutil.copyfile(stem + ".gcno", counts[:-2] + "no")
        said = subprocess.run(["gcov", "--json-format", "--stdout", counts], check=True,
                              cwd=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for text in said.stdout.splitlines():
            for part in json.loads(text)["files"]:
                if part["file"].endswith(file):
                    reached |= {(file, line["line_number"] - 1) for line in part["lines"]
                                if line["count"]}
    return test, reached


def measured(library, jobs):
    """What measure() says, or said of the same library and tests."""
    try:
        with open(MEASURED, encoding="utf-8") as known:
            state, taken, lines = json.load(known)
    except (FileNotFoundError, ValueError):
        state = None
    if state != state_of("", "measured"):
        taken, reach = measure(library, jobs)
        lines = [[*line, sorted(tests)] for line, tests in reach.items()]
        with open(MEASURED, "w", encoding="utf-8") as to:
            json.dump([state_of("", "measured"), taken, lines], to)
    print(f"{len(taken)} test programs, {sum(taken.values()):.0f} s together", flush=True)
    return taken, {(file, line): set(tests) for file, line, tests in lines}


def measure(library, jobs):
    """Seconds that each test takes unchanged, and (file, line) -> the tests that reach
    it. One that has its processes killed counts nothing, and is for all lines."""
    os.makedirs(COVER, exist_ok=True)
    objects = {}
    for file in FILES:
        objects[file] = os.path.join(COVER, file.replace("/", "_") + ".o")
        if not library.compile(file, os.path.join(SOURCE, file), objects[file],
                               "--coverage", "-O0"):  # inlined calls count no line
            sys.exit(f"{file} cannot be compiled to count its lines")
    counting = os.path.join(COVER, LIBRARY)
    library.link(objects, counting, "--coverage")

    def one(test):
        where = fresh("measured", test)
        output = os.path.join(HOME, "measured", test + ".txt")
        started = time.monotonic()
        if not run_test(test, where, 10 * LONGEST_S, {}, output):
            print(f"{test} fails without a change: see {output}", file=sys.stderr, flush=True)
            return test, None, set()
        seconds = time.monotonic() - started
        if seconds > LONGEST_S:
            print(f"left out: {test}, which takes {seconds:.0f} s", flush=True)
            return test, seconds, set()
        data = fresh("counted", test)
        run_test(test, where, 20 * LONGEST_S, {"LD_PRELOAD": counting, "GCOV_PREFIX": data})
        shutil.rmtree(where)
        result = test, seconds, lines_reached(test, data)[1]
        shutil.rmtree(data)
        return result

    taken, reach = {}, collections.defaultdict(set)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for test, seconds, lines in pool.map(one, programs()):
            if seconds is None:
                sys.exit(2)
            if seconds <= LONGEST_S:
                taken[test] = seconds
            for line in lines:
                reach[line].add(test)
    return taken, reach


class Trial:
    """Tries mutants, each in a folder of its own thread."""

    def __init__(self, library, jobs):
        self.library = library
        self.taken, self.reach = measured(library, jobs)
        self.killers = collections.defaultdict(list)  # of each file, the latest first
        self.folder = threading.local()

    def tests_for(self, file, number):
        """Those that reach the line, or one next to it, which a declaration needs: first
        those that killed others nearby, then the shortest."""
        near = set().union(*(self.reach.get((file, line), ())
                             for line in range(number - 1, number + 2)))
        if "kill_test" in self.taken:
            near.add("kill_test")
        order = {}
        for line, test in self.killers[file]:
            order.setdefault(test, abs(line - number))
            order[test] = min(order[test], abs(line - number))
        return sorted(near & self.taken.keys(),
                      key=lambda test: (order.get(test, 1e9) > 30, self.taken[test]))

    def judge(self, file, mutant, patience):
        number, column, old, new, _ = mutant
        if not hasattr(self.folder, "path"):
            self.folder.path = fresh("worker", str(threading.get_ident()))
        path = self.folder.path
        with open(os.path.join(SOURCE, file), encoding="utf-8") as source:
            lines = source.read().split("\n")
        # In one place, as an assert's text names it.
        text, unchanged, changed = (os.path.join(path, name) for name in
                                    (os.path.basename(file), file.replace("/", "_") + ".0",
                                     "mutant.o"))
        if not os.path.exists(unchanged):
            self.write(text, lines)
            self.library.compile(file, text, unchanged)
        line = lines[number]
        lines[number] = "" if column == 0 and new == "" else (
            line[:column] + new + line[column + len(old):])
        self.write(text, lines)
        if not self.library.compile(file, text, changed):
            return "refused"  # by the compiler: no mutant
        if filecmp.cmp(unchanged, changed, False):
            return "same"  # to the compiler: no mutant
        preloaded = os.path.join(path, LIBRARY)
        self.library.link({file: changed}, preloaded)
        started = time.monotonic()
        for test in self.tests_for(file, number):
            if time.monotonic() - started > patience:
                return "lives so far"
            where = os.path.join(path, "scratch")
            shutil.rmtree(where, ignore_errors=True)
            os.makedirs(where)
            if not run_test(test, where, 4 * self.taken[test] + 5,
                            {"LD_PRELOAD": preloaded}):
                self.killers[file].append((number, test))
                return f"killed by {test}"
        return "survived"

    @staticmethod
    def write(path, lines):
        with open(path, "w", encoding="utf-8") as to:
            to.write("\n".join(lines))


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
def state_of(file, result):
    """What RESULT of a mutant of FILE depends on: that file, what tests share, and the
    test that killed; or the library and all tests. A result of any other state says
    nothing."""
    tests = programs()
    killer = tests.get(result.removeprefix("killed by "))
    folders = ["tests/support"]
    paths = [os.path.join(ROOT, file), killer]
    if not killer:
        folders += ["fileio", "buffer", "index", "storage"]
        paths = list(tests.values())
    paths += [path for folder in folders
              for path in glob.glob(os.path.join(ROOT, folder, "*.[ch]"))]
    return hashlib.sha256("".join(
        os.path.relpath(path, ROOT) + digest_of(path)
        for path in sorted(paths)).encode()).hexdigest()[:16]


def known_results():
    """Of the present state: lines of a mutant's name, its state, and the result."""
    known = {}
    for line in lines_of(RESULTS):
        name, *rest = line.split("\t")
        if len(rest) == 2 and rest[0] == state_of(name.split(" | ")[0], rest[1]):
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
    counts = {"killed": 0, "explained": 0, "survived": 0, "refused": 0, "same": 0,
              "lives": 0}
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
          f"the compiler refused {counts['refused']} more, and makes the same of "
          f"{counts['same']}; {counts['lives']} live so far")
    return counts


def tally(mutants, counts):
    """Of a thousand that the compiler takes: 1000 when all were tried, and none of them
    survives unexplained."""
    fine = counts["killed"] + counts["explained"]
    number = len(mutants) - counts["refused"] - counts["same"]
    print(f"tally: ={1000 * fine // max(1, number)} "
          "mutants of a thousand")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1e9)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--file", choices=FILES)
    parser.add_argument("--patience", type=float, default=1e9)
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
    # What is explained needs no trial.
    results.update((one[0], "survived") for one in mutants if is_explained(one[0], reasons))
    left = [] if arguments.again else [one for one in mutants if one[0] not in results]
    left += [one for one in mutants
             if results.get(one[0]) == "survived" and not is_explained(one[0], reasons)]
    if left:
        make_copy()
        for file in FILES:  # of what was copied, whatever is edited meanwhile
            for test in programs():
                state_of(file, f"killed by {test}")
            for result in ("survived", "refused", "same"):
                state_of(file, result)
        build(arguments.jobs)
        trial = Trial(Library(), arguments.jobs)

    def one(mutant):
        if time.monotonic() > end:
            return
        result = trial.judge(*mutant[1:], arguments.patience)
        results[mutant[0]] = result
        print(f"{result}: {mutant[0]}", flush=True)
        if result == "lives so far":
            return
        with open(RESULTS, "a", encoding="utf-8") as to:
            to.write(f"{mutant[0]}\t{state_of(mutant[1], result)}\t{result}\n")

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(one, left))
    wrong = check_explanations(reasons)
    counts = report(mutants, results, reasons)
    if not arguments.file:
        tally(mutants, counts)
    return 1 if counts["survived"] or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
