"""The stages of the attack, and the best confirmed point at every moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.device import torch_settings
from onnxsub.errors import InputError
from onnxsub.geometry import halfspace_radius
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack.descent import Objective, Schedule, Track, descend
from onnxsub.passes.attack.effort import Effort
from onnxsub.passes.attack.fgsm import sign_search
from onnxsub.passes.attack.polish import AdversarialPoint, Confirm, settle, sharpen
from onnxsub.passes.attack.result import AttackOptions, AttackResult
from onnxsub.passes.attack.sampled import jumps, nearer_points, sampled_points
from onnxsub.passes.attack.walk import float64_confirm, start_offsets
from onnxsub.query import other_classes
from onnxsub.region import InputSpace

if TYPE_CHECKING:
    from onnxsub.query import Query

__all__ = ["Attacker", "Progress"]

_SCOUT_STEPS = 16
_WORTH = 0.15  # a target whose scouted radius is larger than the best one by more than this share is dropped
_TEMPERATURE = 0.05  # restarts are shared out by exp(-excess / temperature)
_CONFIRMED = 3  # of the best rows, at most, are taken to the judge at a time
_SMALL = 50_000  # up to so many values per point a second thread gains nothing, and costs tenfold beside a busy process
_GAIN = 0.001  # a batch of restarts that gains less than this share is the last

Progress = Callable[[float, str], None]


class Attacker:
    """One attack that can be interrupted: `run()` raises what it meets, `result()` hands out the best point so far."""

    def __init__(
        self,
        network: Network,
        x0: Array,
        label: int,
        space: InputSpace,
        options: AttackOptions | None = None,
        confirm: Confirm | None = None,
        *,
        target: int | None = None,
        head: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        progress: Progress | None = None,
    ) -> None:
        options = options or AttackOptions()
        if tuple(x0.shape) != network.input_shape:
            raise InputError(f"the anchor has shape {list(x0.shape)}, the network wants {list(network.input_shape)}")
        if not 0 <= label < network.classes:
            raise InputError(f"label {label} is out of range: the classes are 0 to {network.classes - 1}")
        self._targets = other_classes(network.classes, label, target)
        self.options = options
        self._effort = Effort.of(options.effort, options.restarts)
        self._x0 = np.asarray(x0, dtype=np.float32)
        self._space = space
        self._confirm = confirm or float64_confirm(network, label, target)
        self._head = head or {}
        self._progress = progress
        self._objective = Objective(
            network, self._x0, label, space, device=options.device, dtype=torch.float32, target=target
        )
        self._jumps = jumps(network)
        self._start = None if options.start is None else start_offsets(options.start, self._x0, space).to(options.device)
        self._upper = min(space.reach(self._x0), math.inf if options.upper is None else options.upper)
        self._generator = torch.Generator(device=options.device).manual_seed(options.seed)
        self._pool: Track | None = None
        self._settled = math.inf  # the pool's best radius at the last settling
        self._best: AdversarialPoint | None = None
        self._time: dict[str, float] = {}
        self._whole = budget or Budget()
        self._budget = self._whole
        self._cut: str | None = None  # the stage that the end of the budget cut short

    @staticmethod
    def of(
        query: Query, options: AttackOptions | None = None, *, budget: Budget | None = None, progress: Progress | None = None
    ) -> Attacker:
        """The attack on a query, confirmed by onnxruntime."""
        return Attacker(
            query.network, query.x0, query.label, query.space, options, query.margins, target=query.target,
            head=query.json_head(), budget=budget, progress=progress,
        )  # fmt: skip

    def result(self) -> AttackResult:
        """The best point so far; confirms first what the descent found since."""
        self._settle()
        best = self._best
        self._time["total"] = self._budget.spent
        return AttackResult(
            found=best is not None,
            d_adv=math.inf if best is None else best.radius,
            x_adv=None if best is None else best.x,
            adversarial_label=None if best is None else best.label,
            margin=-math.inf if best is None else best.margin,
            time_s=dict(self._time),
            evaluations=self._objective.evaluations,
            timed_out=self._cut is not None and not self._budget.stop.is_set(),
            settings=self.options.to_json(),
            head=self._head,
            stage=self._cut,
        )

    def run(self) -> AttackResult:
        """All stages, until the budget ends."""
        self._budget = self._whole.part(math.inf if self.options.timeout is None else self.options.timeout)
        with torch_settings(1 if self._objective.values <= _SMALL else self.options.threads):
            try:
                with self._stage("anchor", 0.0):
                    known = self._anchor_is_misclassified()
                    self._budget.check()
                if not known:
                    self._stages()
            except OutOfTime:
                pass  # `_stage` has noted which one
            return self.result()

    def _stages(self) -> None:
        objective, options, budget = self._objective, self.options, self._budget
        with self._stage("probe", 0.01):
            targets, gradients, estimates = self._probe()
        if options.method != "pgd":
            with self._stage("fgsm", 0.02):
                count = self._effort.signs
                self._offer(sign_search(objective, targets[:count], gradients[:count].sign(), self._upper, budget))
                self._settle()
                budget.check()
        if self._start is not None:
            with self._stage("start", 0.05):
                self._offer(sharpen(objective, self._start, upper=self._upper, budget=budget))
                budget.check()
        if options.method == "fgsm":
            return
        with self._stage("scout", 0.1):
            count = self._effort.scouted
            scouted = self._scout(targets[:count], gradients[:count], estimates[:count])
            budget.check()
            if self._pool is None:
                scouted = scouted.join(self._random_points())
            if self._jumps:
                self._offer(sampled_points(objective, self._upper, options.effort, self._generator, budget))
                budget.check()
        for i in range(options.rounds):
            before = self._radius
            with self._stage("descend", 0.2 + 0.6 * i / options.rounds):
                self._offer(self._descend(scouted))
                budget.check()
            if self._pool is not None and self._radius > (1 - _GAIN) * before:
                break
        if self._pool is not None:
            with self._stage("polish", 0.85):
                plan = Schedule(steps=options.steps, first=0.15, last=0.0005, noise=(0.5, 0.0), quiet=0.3)
                self._offer(self._run(self._pool.resumed(), plan))
                nearest = self._pool.point[:2]
                self._offer(sharpen(objective, nearest, upper=self._upper, steps=options.steps // 2, budget=budget))
                if self._jumps:
                    self._offer(nearer_points(objective, self._pool, options.effort, self._generator, budget))
        with self._stage("confirm", 0.98):
            self._settle()

    def _anchor_is_misclassified(self) -> bool:
        margins, labels = self._confirm(self._x0[None])
        # of two equal logits the first one is the predicted class
        if margins[0] > 0 or (margins[0] == 0 and labels[0] < self._objective.label):
            self._best = AdversarialPoint(self._x0, 0.0, int(labels[0]), float(margins[0]))
        return self._best is not None

    def _probe(self) -> tuple[Tensor, Tensor, Tensor]:
        """The targets in order of promise, the gradients of their margins at the anchor, and the radii of their linear models."""
        o = self._objective
        targets = torch.tensor(self._targets, device=o.x0.device)
        zero = torch.zeros((1, o.n), dtype=o.x0.dtype, device=o.x0.device)
        if len(targets) > self._effort.targets:
            with torch.no_grad():
                f = o.logits(zero)[0]
            targets = targets[f[targets].topk(self._effort.targets).indices]
        margins, gradients, _ = o.gradient(zero.expand(len(targets), -1), targets, self._budget)
        estimates = halfspace_radius(gradients, margins, o.low, o.high)
        order = estimates.argsort(stable=True)
        return targets[order], gradients[order], estimates[order]

    def _scout(self, targets: Tensor, gradients: Tensor, estimates: Tensor) -> Track:
        """A short descent for every target, from the sign of its gradient and from a random direction."""
        radius = estimates.clamp(min=1e-4 * self._objective.reach, max=self._upper).repeat(2)
        direction = torch.cat([gradients.sign(), self._cloud(len(targets))])
        plan = Schedule(steps=min(_SCOUT_STEPS, self.options.steps), growth=0.25, last=0.01)
        track = self._run(Track.begin(targets.repeat(2), direction, radius), plan)
        self._offer(track)
        return track

    def _descend(self, scouted: Track) -> Track:
        """Restarts from random directions, more of them for the targets that came nearer in the scout."""
        score = scouted.score.nan_to_num(nan=self._upper).clamp(max=self._upper)
        excess = score / score.min().clamp(min=1e-30) - 1  # 0: the anchor itself is on the boundary
        targets = torch.unique(scouted.targets[excess <= _WORTH])
        smallest = torch.stack([excess[scouted.targets == t].min() for t in targets])
        weights = torch.exp(-smallest / _TEMPERATURE)
        count = (weights / weights.sum() * self._effort.restarts).round().clamp(min=1).to(torch.int64)
        aims = targets.repeat_interleave(count)
        radius = ((smallest + 1) * score.min()).repeat_interleave(count)
        return self._run(Track.begin(aims, self._cloud(len(aims)), radius), Schedule(steps=self.options.steps))

    def _random_points(self) -> Track:
        """For networks whose gradient leads nowhere: random points and corners of the largest ball, and its two extreme corners."""
        o = self._objective
        directions = self._cloud(2 * self._effort.restarts)
        directions[::2] = directions[::2].sign()
        directions[0], directions[1] = 1.0, -1.0
        radius = torch.full((len(directions),), self._upper, dtype=directions.dtype, device=directions.device)
        delta = o.project(self._upper * directions)
        worst, targets = o.worst(delta, self._budget)
        track = replace(
            Track.begin(targets, directions, radius),
            best=torch.where(worst > 0, delta.abs().amax(dim=1), math.inf),
            point=delta,
        )
        self._offer(track)
        return track

    def _run(self, track: Track, plan: Schedule) -> Track:
        return descend(self._objective, track, plan, upper=self._upper, generator=self._generator, budget=self._budget)

    def _cloud(self, rows: int) -> Tensor:
        o = self._objective
        return torch.rand((rows, o.n), generator=self._generator, dtype=o.x0.dtype, device=o.x0.device) * 2 - 1

    def _offer(self, track: Track | None) -> None:
        """Keeps the best rows."""
        if track is None:
            return
        pool = track if self._pool is None else self._pool.join(track)
        rows = torch.arange(len(pool.best), device=pool.best.device)[pool.best.isfinite()]
        if len(rows):
            self._pool = pool.take(rows[pool.best[rows].argsort(stable=True)][: self._effort.finalists])

    def _settle(self) -> None:
        """Confirms the best rows, if they are better than what was confirmed before."""
        if self._pool is None or self._radius >= self._settled:
            return
        self._settled = self._radius
        near = self._pool.best <= 1.002 * self._radius
        offsets = self._pool.point[near][:_CONFIRMED].to(device="cpu", dtype=torch.float64).numpy()
        point = settle(self._x0, offsets, self._space, self._confirm, self._upper, self._budget)
        if point is not None and (self._best is None or point.radius < self._best.radius):
            self._best = point

    @property
    def _radius(self) -> float:
        return math.inf if self._pool is None else float(self._pool.best[0])

    @contextmanager
    def _stage(self, name: str, share: float) -> Iterator[None]:
        if self._progress is not None:
            known = f", radius {self._radius:.6g} so far" if self._pool is not None else ""
            self._progress(share, f"attack: {name}{known}")
        start = time.perf_counter()
        try:
            yield
        finally:
            self._time[name] = self._time.get(name, 0.0) + time.perf_counter() - start
            if self._cut is None and self._budget.over:
                self._cut = name
