"""What every SNV of a region does, drawn: positions from left to right, letters from above, changes as colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.files import publish_file
from metalayer.genome import N_TOKEN
from metalayer.variants.saturation import BASES, DeltaMap

FORMS = (".png", ".svg")
LONGEST = 1_000_000
"""Positions of a picture; a longer region is drawn in parts."""
_COLUMNS = 1200
"""Of a picture at most: where there are more positions, a column has the largest change of several."""
_LETTERS_SHOWN = 150
"""Positions up to which the letters of the reference are written."""
_LEAST_RANGE = 0.2
"""Changes below it never have the full colour."""
_SITES = {"donor": ("v", "#1a7f37"), "acceptor": ("^", "#8250df")}
_NOTHING = "#e6e9ec"
_PER_LETTER = 0.32
"""Inches."""


def refuse_picture(path: Path, length: int) -> None:
    """See that a region can be drawn.

    Raises:
        InputError: another name of the file, or a region that is too long.
        ModuleNotFoundError: no matplotlib.
    """
    import matplotlib.figure  # noqa: F401 - a lack of it is to be seen before hours of work

    if path.suffix not in FORMS:
        raise InputError(f"--plot: given {path}; needed is a name in {' or '.join(FORMS)}")
    if length > LONGEST:
        raise InputError(
            f"--plot: the region has {length:,} nt; at most {LONGEST:,} are drawn: leave it out, or divide"
        )


def in_columns(deltas: NDArray[np.float32], columns: int = _COLUMNS) -> tuple[NDArray[np.float32], int]:
    """The largest changes (4, n) of so many positions side by side, with their signs, and how many these are."""
    length = deltas.shape[1]
    several = -(-length // columns)
    padded = np.pad(deltas, ((0, 0), (0, -length % several)), constant_values=np.nan)
    parts = padded.reshape(len(deltas), -1, several)
    most = np.nan_to_num(np.abs(parts), nan=-1.0).argmax(axis=2)
    return np.take_along_axis(parts, most[:, :, None], axis=2)[:, :, 0], several


def draw(path: Path, shown: DeltaMap) -> None:
    """Write the picture, `.png` or `.svg`: one strip for each base model and for ours."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    style = {"font.size": 9.0, "svg.fonttype": "none", "svg.hashsalt": "metalayer", "axes.titlelocation": "left"}
    with mpl.rc_context(style):
        strips = len(shown.deltas)
        height = 1.2 + strips * (len(BASES) * _PER_LETTER + 0.6)
        figure = Figure(figsize=(12, height), layout="constrained")
        figure.suptitle(
            f"{shown.contig}:{shown.place.start + 1:,}-{shown.place.end:,}  largest change of a site by each SNV",
            x=0.01,
            ha="left",
        )
        largest = max((float(np.nanmax(np.abs(one), initial=0)) for one in shown.deltas.values()), default=0.0)
        limit = max(largest, _LEAST_RANGE)
        axes = figure.subplots(strips, 1, squeeze=False, sharex=True)[:, 0]
        for strip, (name, deltas) in zip(axes, shown.deltas.items(), strict=True):
            values, several = in_columns(deltas)
            start = shown.place.start + 0.5
            image = strip.imshow(
                values,
                cmap="RdBu_r",
                vmin=-limit,
                vmax=limit,
                aspect="auto",
                interpolation="nearest",
                extent=(start, start + several * values.shape[1], len(BASES) - 0.5, -0.5),
            )
            strip.set_facecolor(_NOTHING)
            strip.set_title(name, pad=16)
            strip.set_yticks(range(len(BASES)), list(BASES))
            strip.set_xlim(start, shown.place.end + 0.5)
            strip.xaxis.set_major_formatter("{x:,.0f}")
            for kind, (marker, colour) in _SITES.items():
                sites = shown.sites[kind] + 1
                (marks,) = strip.plot(
                    sites,
                    np.full(len(sites), 1.06),
                    marker,
                    color=colour,
                    markersize=6,
                    clip_on=False,
                    transform=strip.get_xaxis_transform(),
                    label=f"annotated {kind}",
                )
                marks.set_in_layout(False)
            if len(shown.place) <= _LETTERS_SHOWN:
                for at, token in enumerate(shown.reference.tolist()):
                    if token != N_TOKEN:
                        place = shown.place.start + 1 + at, token
                        letter = strip.text(*place, BASES[token], ha="center", va="center", fontsize=6, color="#57606a")
                        letter.set_in_layout(False)
        note = f"; a column shows the largest change of {several} positions" if several > 1 else ""
        axes[-1].set_xlabel(f"position (1-based), and letter of ALT{note}; grey: REF, or no score")
        axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1.04), ncols=2, frameon=False)
        figure.colorbar(image, ax=list(axes), label="gain (+) or loss (−)", shrink=0.9, pad=0.01)
        with publish_file(path) as draft:
            no_date = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(draft, format=path.suffix[1:], dpi=150, metadata=no_date)
