"""Training curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from metalayer.files import publish_file


def plot(history: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Losses, validation figures and learning rate by epoch as PNG; returns `path`."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    from metalayer.evaluation.plots import CURVES, draw_curves

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        draw_curves(axes, title, lines, history)
        if any(lines.values()):
            axes.legend(frameon=False)
    with publish_file(path) as draft:
        figure.savefig(draft, format="png", dpi=120)
    return path
