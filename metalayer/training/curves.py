"""Training curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from metalayer.files import publish_file

_PANELS = (
    ("loss", {"train_loss": "training", "val_loss": "validation"}),
    (
        "validation average precision",
        {"val_pr_auc_splice": "splice (PR-AUC)", "val_ap_donor": "donor", "val_ap_acceptor": "acceptor"},
    ),
    ("learning rate", {"learning_rate": ""}),
)


def plot(history: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Losses, validation figures and learning rate by epoch as PNG; returns `path`."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for name, label in lines.items():
            shown = history if name.startswith("val_") else history[1:]  # the untrained model is only validated
            axes.plot([e["epoch"] for e in shown], [e[name] for e in shown], marker=".", label=label)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if any(lines.values()):
            axes.legend(frameon=False)
    with publish_file(path) as draft:
        figure.savefig(draft, format="png", dpi=120)
    return path
