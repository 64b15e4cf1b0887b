#!/usr/bin/env bash
# OpenSpliceAI 0.0.7, the BED files of `openspliceai predict`: its networks score a donor at the last base of an exon and
# an acceptor at the first base of one, but donor_predictions.bed names the donor's own base and
# acceptor_predictions.bed the base before the acceptor's, on both strands: the two files keep different conventions.
# Scores are written in blocks of 5,000 bases, and those of the last block's padding too: places past the end of the
# sequence. Written here by the function that writes the files, from scores that are 0.9 at two known bases of a sequence
# of 100 (transcript sense, 0-based: donor 20, acceptor 60) and at one of the padding (150). Output seen:
#   plus   donor at 1020, bed 1020; acceptor at 1060, bed 1059; the sequence ends at 1100, bed has 1150
#   minus  donor at 1079, bed 1079; acceptor at 1039, bed 1040; the sequence begins at 1000, bed has 949
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps openspliceai==0.0.7
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 h5py==3.16.0 pyfaidx==0.9.0.3 tqdm==4.70.1 psutil==7.2.2
cd "$folder"
"$folder/venv/bin/python" - <<'P' 2>errors || { cat errors >&2; exit 1; }
import importlib.metadata
import io

import torch
from openspliceai.predict.predict import write_batch_to_bed

START, LENGTH, DONOR, ACCEPTOR, PADDING = 1000, 100, 20, 60, 150
print("openspliceai", importlib.metadata.version("openspliceai"))
found = {}
for word, strand in (("plus", "+"), ("minus", "-")):
    scores = torch.zeros(1, 3, 5000)  # neither, acceptor, donor
    scores[0, 2, DONOR] = scores[0, 1, ACCEPTOR] = scores[0, 2, PADDING] = 0.9
    acceptors, donors = io.StringIO(), io.StringIO()
    name = f"gene-X chr1:{START + 1}-{START + LENGTH}({strand}):+"
    write_batch_to_bed(name, scores, acceptors, donors, threshold=0.5)
    starts = [int(line.split("\t")[1]) for line in donors.getvalue().splitlines()]
    (acceptor,) = (int(line.split("\t")[1]) for line in acceptors.getvalue().splitlines())

    def genomic(index):
        return START + index if strand == "+" else START + LENGTH - 1 - index

    inside = [start for start in starts if START <= start < START + LENGTH]
    outside = [start for start in starts if start not in inside]
    end = f"ends at {START + LENGTH}" if strand == "+" else f"begins at {START}"
    print(
        f"{word:<6} donor at {genomic(DONOR)}, bed {inside[0]}; acceptor at {genomic(ACCEPTOR)}, bed {acceptor}; "
        f"the sequence {end}, bed has {outside[0]}"
    )
    one = 1 if strand == "+" else -1
    assert inside == [genomic(DONOR)], inside
    assert acceptor == genomic(ACCEPTOR) - one, acceptor
    assert outside == [genomic(PADDING)], outside
P
