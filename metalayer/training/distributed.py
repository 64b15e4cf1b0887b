"""Several processes that train one model, as `torchrun` starts them.

Each sees its share of every batch; gradients are added up over all, so that the model is that of one
process with the same batches. Outside torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.rendezvous import rendezvous

from metalayer.errors import ConfigError, TrainingError

LAUNCHERS = ("WORLD_SIZE", "RANK", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")
"""How the variables begin by which torchrun, and other launchers, say to a process which of several it is."""
_TORCHRUN = "TORCHELASTIC_RUN_ID"
_MEET_S = 300
"""Until all processes are there, which torchrun starts together."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def total(self, *values: float) -> list[float]:
        """Sums over all processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        everyone: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(everyone, value)
        return everyone

    def agree(self, value: T) -> T:
        """The first process's value, so that all decide alike."""
        first: T = self.gather(value)[0]
        return first

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()

    def share(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model, its gradients averaged over the processes where there are several."""
        if self.size == 1:
            return model
        devices = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)

    @contextlib.contextmanager
    def apart(self, model: nn.Module, *, last: bool) -> Iterator[None]:
        """Gradients stay with each process until the last batch of an optimizer step."""
        if isinstance(model, nn.parallel.DistributedDataParallel) and not last:
            with model.no_sync():
                yield
        else:
            yield


def forget_launcher() -> None:
    """Drop what a launcher left in the environment: for a process that is never one of several."""
    left = [name for name in os.environ if name.startswith(LAUNCHERS)]
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        logger.warning(
            "WORLD_SIZE=%s in the environment is not for this run, which starts its own processes; not used",
            os.environ["WORLD_SIZE"],
        )
    for name in left:
        del os.environ[name]


def join(device: str) -> World:
    """The world in which torchrun started this process, joined; each process gets a GPU of its own.

    What another launcher set, or left in the shell, is not taken for one: nobody else might ever come.

    Args:
        device: `cpu`, `mps`, `cuda` or `cuda:N`, resolved.

    Raises:
        ConfigError: more processes than GPUs; one of several, and not started by torchrun.
        TrainingError: the others did not come.
    """
    given = os.environ.get("WORLD_SIZE", "")
    if given in ("", "1"):
        return World(device=device)
    if _TORCHRUN not in os.environ:
        rank = os.environ.get("RANK", "")
        if rank not in ("", "0"):
            raise ConfigError(
                f"RANK={rank} and WORLD_SIZE={given} are set, and torchrun did not start this process: start all with "
                "torchrun, or unset both"
            )
        logger.warning("WORLD_SIZE=%s is set, and torchrun did not start this process: it trains alone", given)
        return World(device=device)
    on_gpu = device.startswith("cuda")
    if on_gpu:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; start "
                "as many processes as GPUs, or train on the CPU (device: cpu)"
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    if not torch.distributed.is_initialized():
        _meet("nccl" if on_gpu else "gloo")
    return World(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)


def _meet(backend: str) -> None:
    """Find the other processes.

    Raises:
        TrainingError: they did not come.
    """
    size, place = os.environ["WORLD_SIZE"], f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    logger.info("process %s of %s: meeting the others at %s", os.environ.get("RANK"), size, place)
    try:
        store, rank, number = next(rendezvous("env://", timeout=timedelta(seconds=_MEET_S)))
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"process {os.environ.get('RANK')} of {size} found no others at {place} within {_MEET_S} s: "
            f"{str(error).splitlines()[0]}. Start all with torchrun; in a shell that a launcher left, unset WORLD_SIZE "
            f"and {_TORCHRUN}"
        ) from None
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=number)
