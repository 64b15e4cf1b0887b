#!/usr/bin/env bash
# pybigtools 0.3.0, values() of a BigWig with a damaged block: a panic of Rust comes out, pyo3's PanicException, which is
# no Exception but a BaseException: "except Exception" lets it through, and a whole program ends, after a backtrace on
# stderr that names neither file nor place. pyBigWig 0.3.29 raises RuntimeError for the same bytes. Output seen:
#   whole file     pybigtools 1000000 values, pyBigWig 1000000 values
#   damaged block  pybigtools PanicException, an Exception: False; pyBigWig RuntimeError, an Exception: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pybigtools==0.3.0 pyBigWig==0.3.29 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'P' 2>errors || { cat errors >&2; exit 1; }
import importlib.metadata

import numpy as np
import pybigtools
import pyBigWig

LENGTH = 1_000_000
scores = np.random.default_rng(0).random(LENGTH)
with pyBigWig.open("whole.bw", "w") as file:
    file.addHeader([("chr1", LENGTH)])
    file.addEntries("chr1", 0, values=scores, span=1, step=1)
content = bytearray(open("whole.bw", "rb").read())
for at in range(len(content) // 3, len(content) // 3 + 200):
    content[at] ^= 0xFF
open("damaged.bw", "wb").write(content)


def tools(path):
    return len(pybigtools.open(path).values("chr1", 0, LENGTH, fillna=None))


def wig(path):
    return len(pyBigWig.open(path).values("chr1", 0, LENGTH, numpy=True))


def raised(read, path):
    try:
        read(path)
    except BaseException as error:
        return type(error).__name__, isinstance(error, Exception)
    return "nothing", None


for name in ("pybigtools", "pyBigWig"):
    print(name, importlib.metadata.version(name))
print(f"whole file     pybigtools {tools('whole.bw')} values, pyBigWig {wig('whole.bw')} values")
ours, theirs = raised(tools, "damaged.bw"), raised(wig, "damaged.bw")
print(
    f"damaged block  pybigtools {ours[0]}, an Exception: {ours[1]}; pyBigWig {theirs[0]}, an Exception: {theirs[1]}"
)
assert ours == ("PanicException", False), ours
assert theirs == ("RuntimeError", True), theirs
P
