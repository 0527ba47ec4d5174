"""One process or several (`torchrun`): who takes which films, and how they agree.

Plain DistributedDataParallel: the loop's resumption needs the order of the films and every generator in its own hands, which a
trainer (Lightning) or a wrapped loader (accelerate) would take over, and what is left of either is these few lines.

Batch norms: on GPUs they see the whole batch (SyncBatchNorm), so that the number of GPUs changes nothing but rounding. torch has no
such layer on CPUs: there each process normalises by its own share of the batch, and the running statistics, which are what
validation and the finished network use, are averaged over the processes after every step.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

# The first process decodes all films while the others wait; large sets take hours.
PATIENCE = timedelta(hours=12)
T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among `count`, and its device. Only the first writes anything."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """This process's films of a batch: every count-th, so that sources are spread evenly."""
        return rows[self.rank :: self.count]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def replica(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the processes; itself where there is one."""
        if self.count == 1:
            return network
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices)

    def prepared(self, network: nn.Module) -> nn.Module:
        """The network with the batch norms that several processes need."""
        if self.count > 1 and self.device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return]
        return network

    def average_statistics(self, network: nn.Module) -> None:
        """Make the running means and variances of the batch norms the mean over the processes."""
        if self.count == 1 or self.device.type == "cuda":
            return
        buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        distributed.all_reduce(flat)
        parts = (flat / self.count).split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, same shape."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def gather(self, mine: T) -> list[T]:
        """What each process has, in the order of their ranks."""
        if self.count == 1:
            return [mine]
        found: list[T | None] = [None] * self.count
        distributed.all_gather_object(found, mine)
        return cast(list[T], found)


@contextmanager
def processes() -> Iterator[Processes]:
    """This process as `torchrun` started it, or alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    if count == 1:
        yield Processes(0, 1, torch.device("cuda" if cuda else "cpu"))
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    # gloo beside nccl: Python objects (validation logits, generator states) go through the processors' memory.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Processes(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()
