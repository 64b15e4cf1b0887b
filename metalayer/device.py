"""Which device runs the network. Torch is imported when it is asked."""

from __future__ import annotations

from metalayer.errors import ConfigError


def use_threads(threads: int | None) -> None:
    """Let the network use this many CPU threads; None leaves it at torch's choice."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def resolve_device(name: str) -> str:
    """`auto` to cuda, mps or cpu, whichever is there first; anything else must be there.

    Raises:
        ConfigError: a device that this machine does not have, naming those it has.
    """
    import torch

    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name == "auto":
        return there[0]
    if name not in there:
        raise ConfigError(f"device {name!r} is not available here; there is {', '.join(there)} (or 'auto')")
    return name
