#!/usr/bin/env bash
# Draws DIR/compare_sqlite.jsonl and DIR/compare_engines.jsonl, those that are
# there: one DIR/compare_SETTING.svg or DIR/engines_SETTING.svg for each setting,
# operations per second of all engines on a logarithmic scale.
#
#   bash bench/plot.sh DIR
set -euo pipefail
cd "$1"
python3 - <<'PYTHON'
import json
import os

for source, prefix in (("compare_sqlite", "compare"), ("compare_engines", "engines")):
    if not os.path.exists(source + ".jsonl"):
        continue
    settings = {}
    engines = {}
    with open(source + ".jsonl") as lines:
        for cell in map(json.loads, lines):
            if cell["metric"] != "ops_per_s":
                continue
            row = cell["workload"]
            if cell["threads"] > 1:
                row += f" x{cell['threads']}"
            rows = settings.setdefault(cell["setting"], {})
            rows.setdefault(row, {})[cell["engine"]] = cell["value"]
            if cell["value"] is not None:
                engines.setdefault(cell["setting"], {})[cell["engine"]] = None
    for setting, rows in settings.items():
        names = list(engines.get(setting, {}))
        if not names:
            continue
        with open(f"{prefix}_{setting}.dat", "w") as out:
            print("workload", *names, file=out)
            for workload, values in rows.items():
                figures = [values.get(name) for name in names]
                print(f'"{workload}"', *["-" if f is None else f for f in figures],
                      file=out)
PYTHON
for data in compare_*.dat engines_*.dat; do
    [ -f "$data" ] || continue
    name="${data%.dat}"
    rows="$(wc -l <"$data")"
    columns="$(head -n 1 "$data" | wc -w)"
    gnuplot <<GNUPLOT
set terminal svg background 'white' size $((rows < 20 ? 720 : 200 + 26 * rows)),620
set output "$name.svg"
set title "${name#*_}: operations per second" noenhanced
set style data points
set datafile missing "-"
set logscale y
set format y '%.0s%c'
set xrange [-0.7:$rows - 1.3]
set bmargin 10
set rmargin 8
set grid y
set key outside top center horizontal noenhanced
set xtics rotate by -55 noenhanced
plot for [column=2:$columns] "$data" using 0:column:xtic(1) title columnheader(column) \
    pointtype column + 3 pointsize column == 2 ? 2 : 1.3
GNUPLOT
    rm "$data"
    echo "drawn: $1/$name.svg"
done
