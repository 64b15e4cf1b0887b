#!/usr/bin/env bash
# CI-SpliceAI 1.2.2, its annotation tables (grch37.csv, grch38.csv in the wheel): the columns jn_start and jn_end look
# like the junctions of a gene, pair by pair, and are not: they are two lists of edges, each sorted, and in more than half
# of the genes they differ in length. Read as pairs (with zip, say) the rest is dropped without an error, and most pairs
# are introns that no transcript has. Some edges touch, a start one base before an end: a junction with no intron in it,
# where a check of GT and AG finds exon. Output seen:
#   grch37 genes 18614 lists of different length 9713 edges that touch 164
#   grch38 genes 18580 lists of different length 9714 edges that touch 42
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps cispliceai==1.2.2
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import csv
import importlib.metadata

package = importlib.metadata.distribution("cispliceai")
print("cispliceai", package.version)
seen = {"grch37": (18614, 9713, 164), "grch38": (18580, 9714, 42)}
for build, expected in seen.items():
    (path,) = (file.locate() for file in package.files if file.name == f"{build}.csv")
    genes = unequal = touching = 0
    with open(path, encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            starts, ends = ([int(value) for value in row[name].split(",")] for name in ("jn_start", "jn_end"))
            genes += 1
            unequal += len(starts) != len(ends)
            touching += sum(start + 1 in set(ends) for start in starts)
    print(build, "genes", genes, "lists of different length", unequal, "edges that touch", touching)
    assert (genes, unequal, touching) == expected, expected
P
