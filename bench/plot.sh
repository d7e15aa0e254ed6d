#!/usr/bin/env bash
# Draws DIR/compare_sqlite.jsonl: one DIR/compare_SETTING.png for each setting,
# operations per second of both engines on a logarithmic scale.
#
#   bash bench/plot.sh DIR
set -euo pipefail
cd "$1"
python3 - <<'PYTHON'
import json
settings = {}
with open("compare_sqlite.jsonl") as lines:
    for cell in map(json.loads, lines):
        if cell["metric"] == "ops_per_s":
            rows = settings.setdefault(cell["setting"], {})
            rows.setdefault(cell["workload"], {})[cell["engine"]] = cell["value"]
for setting, rows in settings.items():
    with open(f"compare_{setting}.dat", "w") as out:
        for workload, values in rows.items():
            print(workload, values["bftree"], values["sqlite"], file=out)
PYTHON
for data in compare_*.dat; do
    name="${data%.dat}"
    gnuplot <<GNUPLOT
set terminal png size 1100,500
set output "$name.png"
set title "${name#compare_}: operations per second"
set style data histograms
set style fill solid
set logscale y
set yrange [100:*]
set grid y
set xtics rotate by -30
plot "$data" using 2:xtic(1) title "bftree", "" using 3 title "SQLite"
GNUPLOT
    rm "$data"
    echo "drawn: $1/$name.png"
done
