"""Which device runs the network, and in which precision. Torch is imported when it is asked."""

from __future__ import annotations

from importlib.util import find_spec

from metalayer.errors import ConfigError
from metalayer.extras import install

_TENSOR_CORES_BF16 = (8, 0)
"""Compute capability of CUDA from which bfloat16 has instructions of its own."""


def has_torch() -> bool:
    """Whether torch is installed; without it, networks run in numpy."""
    return find_spec("torch") is not None


def use_threads(threads: int | None) -> None:
    """Let the network use this many CPU threads; None leaves it at torch's choice."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def resolve_device(name: str) -> str:
    """`auto` to cuda, mps or cpu, whichever is there first; anything else must be there.

    Raises:
        ConfigError: a device that this machine does not have, naming those it has, or that needs torch.
    """
    if not has_torch():
        if name not in ("auto", "cpu"):
            raise ConfigError(f"device {name!r} needs torch, which is not installed: {install('training')}")
        return "cpu"
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


def kernels(device: str, precision: str) -> str:
    """The instructions that convolutions run on there: with others their last digits differ.

    Args:
        device: of `resolve_device`.
        precision: float32 or bfloat16, which the device has (`resolve_precision`).
    """
    import torch

    if device.startswith("cuda"):
        return "cuda_sm{}{}".format(*torch.cuda.get_device_capability(device))
    if device != "cpu":
        return device
    if precision == "bfloat16":
        return _cpu_bfloat16()
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return {"avx512": "avx512_core"}.get(capability, capability)  # oneDNN's name


def resolve_precision(name: str, device: str) -> str:
    """`auto` to bfloat16 where the device has instructions for it, and to float32 elsewhere.

    Args:
        name: float32, bfloat16 or auto.
        device: of `resolve_device`.

    Raises:
        ConfigError: another name, or bfloat16 on a device that would compute it in software, slower than float32.
    """
    if name not in ("float32", "bfloat16", "auto"):
        raise ConfigError(f"precision {name!r} is unknown; there are float32, bfloat16 and auto")
    if name == "float32":
        return name
    if device.startswith("cuda"):
        import torch

        is_there = torch.cuda.get_device_capability(device) >= _TENSOR_CORES_BF16
    else:
        is_there = device == "cpu" and bool(_cpu_bfloat16())
    if name == "bfloat16" and not is_there:
        raise ConfigError(
            f"precision 'bfloat16' is not available on {device} here: it takes a CPU with AMX or AVX512_BF16, or a GPU "
            "of CUDA 8.0 or later; take float32, or auto, which takes bfloat16 where there is one"
        )
    return "bfloat16" if is_there else "float32"


def _cpu_bfloat16() -> str:
    """The instructions of this CPU that multiply bfloat16, as oneDNN calls them; empty where it has none."""
    import torch

    if torch.cpu._is_amx_tile_supported():
        return "amx_bf16"
    return "avx512_bf16" if torch.cpu._is_avx512_bf16_supported() else ""
