"""The training loop: interrupted at any step and taken up again, it gives the weights of an undisturbed run."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from onnxsub.errors import DivergedError, InputError, OptionError
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.build import build
from onnxsub.zoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from onnxsub.zoo.images import ImageSet
from onnxsub.zoo.losses import loss_of
from onnxsub.zoo.recipe import Recipe

__all__ = ["augmented", "on_unit_scale", "pick_device", "train"]

SAVE_SECONDS = 60.0
"""Time between two checkpoints; one is also written at the end of every epoch."""

SHIFT = 4
"""Pixels that an image is shifted by at most."""

Report = Callable[[float, str], None]


def train(
    recipe: Recipe,
    data: ImageSet,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    device: str = "cpu",
    progress: Report | None = None,
    save_seconds: float = SAVE_SECONDS,
    start: nn.Sequential | None = None,
) -> nn.Sequential:
    """Train by `recipe`, or go on where `checkpoint` ends. Returns the network on the CPU.

    Every random number is a function of the seed and the number of the step, so a checkpoint holds no generator's state: with the
    same torch build, processor, threads and device, the weights do not depend on how often the training was interrupted.

    Args:
        checkpoint: file to read, if it is there, and to write.
        device: `cpu` or `cuda`.
        progress: is told the fraction done and what is being done.
        save_seconds: see `SAVE_SECONDS`.
        start: the network with its first weights, where the recipe's architecture does not say it; it is left as it is.

    Raises:
        InputError: the checkpoint is of another recipe, of other images or damaged; there is no such device; the training diverged:
            then the checkpoint holds the last state that was good.
        OutputError: the checkpoint cannot be written.
    """
    where = pick_device(device)
    digest = data.train.sha256
    if start is None:
        start = build(architecture(recipe.architecture), data.shape, data.classes, recipe.seed)
    net = copy.deepcopy(start).to(where)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    begun, spent = 0, 0.0
    if checkpoint is not None and Path(checkpoint).exists():
        saved = read_checkpoint(checkpoint)
        saved.check(recipe, digest, checkpoint)
        net.load_state_dict(saved.weights)
        optimiser.load_state_dict(dict(saved.optimiser))
        begun, spent = saved.step, saved.seconds

    x_all, y_all = torch.from_numpy(data.train.x), torch.from_numpy(data.train.y)
    per_epoch = -(-len(data.train) // recipe.batch)
    total = recipe.epochs * per_epoch
    order = np.empty(0, dtype=np.int64)
    lost = loss_of(recipe)
    since = saved_at = time.monotonic()
    text, loss_sum, losses = "", 0.0, 0

    def save(step: int) -> None:
        if checkpoint is not None:
            seconds = spent + time.monotonic() - since
            known = (recipe, data.name, data.shape, data.classes, digest)
            write_checkpoint(Checkpoint(*known, step, seconds, net.state_dict(), optimiser.state_dict()), checkpoint)

    with _repeatable():
        for step in range(begun, total):
            epoch, i = divmod(step, per_epoch)
            if i == 0 or step == begun:
                order = np.random.default_rng((recipe.seed, epoch)).permutation(len(data.train))
                behind = f", loss {loss_sum / losses:.4f} in the one before" if losses else ""
                text, loss_sum, losses = f"epoch {epoch + 1} of {recipe.epochs}{behind}", 0.0, 0
            rows = torch.from_numpy(order[i * recipe.batch : (i + 1) * recipe.batch])
            rng = torch.Generator().manual_seed(_mixed(recipe.seed, step))
            x = on_unit_scale(x_all[rows])
            if recipe.augment:
                x = augmented(x, rng)
            x, y = x.to(where), y_all[rows].to(where)
            phase, radius = recipe.phase(epoch), recipe.budget_at((step + 1) / per_epoch)
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate_at((step + 1) / (total + 1))
            optimiser.zero_grad()
            loss = lost(net, x, y, radius, phase, rng)
            torch.autograd.backward(loss)
            optimiser.step()
            loss_sum, losses = loss_sum + loss.item(), losses + 1
            if not np.isfinite(loss_sum):
                raise _diverged(epoch, checkpoint)
            if progress is not None and (i % 10 == 0 or i + 1 == per_epoch):
                progress((step + 1) / total, text)
            if i + 1 == per_epoch or time.monotonic() - saved_at >= save_seconds:
                if not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
                    raise _diverged(epoch, checkpoint)  # what was saved before stays
                save(step + 1)
                saved_at = time.monotonic()
    return net.cpu().eval()


def on_unit_scale(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images as numbers in [0, 1]: 8-bit values divided by 255."""
    return x.to(dtype).div_(255) if x.dtype == torch.uint8 else x.to(dtype)


def augmented(x: Tensor, rng: torch.Generator) -> Tensor:
    """Every image of `(N, C, H, W)` shifted by up to `SHIFT` pixels, with zeros moving in, and turned left to right or not."""
    n, _, height, width = x.shape
    padded = nn.functional.pad(x, (SHIFT,) * 4)
    top, left = torch.randint(0, 2 * SHIFT + 1, (2, n, 1), generator=rng)
    turned = torch.rand((n, 1), generator=rng) < 0.5
    columns = torch.arange(width)
    rows = top + torch.arange(height)
    columns = left + torch.where(turned, columns.flip(0), columns)
    # indices apart by a slice put the indexed axes first: (N, H, W, C)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def pick_device(name: str) -> torch.device:
    """`cpu` or `cuda`. Raises InputError when torch sees no such device, and for any other name."""
    if name not in ("cpu", "cuda"):
        raise OptionError(f"--device {name!r} is unknown; choose cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("torch sees no CUDA device; leave out --device cuda, or install a build of torch for it")
    return torch.device(name)


@contextmanager
def _repeatable() -> Iterator[None]:
    """cuDNN chooses among its algorithms by measuring, unless told not to; then a run does not repeat."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def _diverged(epoch: int, checkpoint: str | os.PathLike[str] | None) -> DivergedError:
    kept = checkpoint is not None and Path(checkpoint).exists()
    where = f"; checkpoint {os.fspath(checkpoint)!r} holds the last good state" if checkpoint is not None and kept else ""
    return DivergedError(f"the training diverged in epoch {epoch + 1}{where}; take a smaller learning rate, and --restart")


def _mixed(seed: int, step: int) -> int:
    """A number of 63 bits that looks random, for `seed` and `step`: neighbouring seeds of torch's generator are not far apart."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
