"""The device that is not there refuses what a GPU would refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.pretend_device import PretendDevice, is_marked, pretend_device


@pytest.fixture(autouse=True)
def mode() -> Iterator[PretendDevice]:
    with pretend_device() as found:
        yield found


def test_what_is_made_there_says_so() -> None:
    made = [
        torch.zeros(3, device="cuda"), torch.full((3,), 1.0, device="cuda:0"), torch.tensor([1, 2, 3], device=torch.device("cuda")),
        torch.arange(3, device="cuda"), torch.eye(3, device="cuda")[0], torch.as_tensor(np.ones(3), device="cuda"),
        torch.ones(3).to("cuda"), torch.ones(3).cuda(), torch.ones(3).to(torch.zeros(1, device="cuda")),
        torch.ones(3).to("cuda", torch.float64), torch.ones(3).to(device="cuda"), torch.rand(3, device="cuda"),
    ]  # fmt: skip
    for t in made:
        assert t.device == torch.device("cuda", 0)
        assert t.is_cuda
        assert torch.zeros_like(t).is_cuda
        assert t.new_ones(2).is_cuda
        assert torch.zeros(2, device=t.device).is_cuda
    assert torch.ones(3).to(made[0]).dtype == made[0].dtype
    assert made[9].dtype == torch.float64
    for t in (torch.zeros(3), torch.ones(3, device="cpu"), made[0].cpu(), made[0].to("cpu"), made[0].to(torch.ones(1))):
        assert t.device == torch.device("cpu")
        assert not t.is_cuda


def test_a_move_is_a_copy_and_leaves_the_source_where_it_is() -> None:
    here = torch.ones(3)
    there = here.to("cuda")
    there += 1
    back = there.cpu()
    assert (here.tolist(), back.tolist()) == ([1, 1, 1], [2, 2, 2])
    assert (is_marked(here), is_marked(there), is_marked(back)) == (False, True, False)
    assert there.to("cuda") is there
    assert here.cpu() is here


def test_marks_go_along() -> None:
    t = torch.arange(6.0, device="cuda").reshape(2, 3)
    results = [
        t + 1, t.T, t[0], t[:, 1:], *t, *torch.split(t, 1), t.sort(dim=1).values, t.max(1).indices, t > 2,
        torch.where(t > 2, t, 0.0), torch.cat([t, t]), t.double(), t.sum(), torch.nonzero(t),
        t.detach(), t.expand(4, 2, 3), t.mul_(2), t.clamp(min=t),
        t @ t.T, torch.relu(t),
    ]  # fmt: skip
    assert all(r.is_cuda for r in results)


def test_gradients_go_along() -> None:
    w = torch.ones((3, 2), device="cuda").requires_grad_()
    x = torch.ones((1, 3), device="cuda")
    (g,) = torch.autograd.grad((x @ w).sum(), w)
    assert g.is_cuda
    with pytest.raises(RuntimeError, match="same device"):
        g + torch.ones((3, 2))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda a, b: a + b,
        lambda a, b: b * a,
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: torch.where(b > 0, a, a),
        lambda a, b: torch.cat([a, b]),
        lambda a, b: torch.cat([a[None, 0], b[0].reshape(1)]),
        lambda a, b: torch.stack([a[0], b[0]]),
        lambda a, b: a @ b,
        lambda a, b: a.clamp(min=b),
        lambda a, b: a.gather(0, torch.zeros(1, dtype=torch.long)),
        lambda a, b: torch.bucketize(a, b),
        lambda a, b: a.add_(b),
        lambda a, b: b.add_(a),
        lambda a, b: b + a[0],
        lambda a, b: a.index_select(0, torch.zeros(1, dtype=torch.long)),
        lambda a, b: a.scatter_add(0, torch.zeros(1, dtype=torch.long, device="cuda"), b),
        lambda a, b: torch.maximum(a, b),
        lambda a, b: torch.autograd.grad((a.clone().requires_grad_() * 2).sum() + b.sum(), b),
    ],
)
def test_two_devices_do_not_mix(mixed: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = torch.ones(3, device="cuda"), torch.ones(3)
    with pytest.raises(RuntimeError):
        mixed(a, b)


def test_a_scalar_of_the_processor_is_taken() -> None:
    a = torch.ones(3, device="cuda")
    assert (a * torch.tensor(2.0)).is_cuda
    assert torch.where(a > 0, a, torch.tensor(0.0)).is_cuda


def test_indices_and_assignment() -> None:
    a, b = torch.ones(3, device="cuda"), torch.ones(3)
    here, there = torch.tensor([0, 2]), torch.tensor([0, 2], device="cuda")
    assert a[here].is_cuda
    assert a[there].is_cuda
    a[here] = 2.0
    a[there] = torch.zeros(2, device="cuda")
    a[0] = torch.tensor(3.0)
    b.copy_(a)
    assert not b.is_cuda
    assert b.tolist() == [3.0, 1.0, 0.0]
    for wrong in (lambda: b[there], lambda: b[a > 0], lambda: b.__setitem__(there, 1.0), lambda: a.__setitem__(here, b[here])):
        with pytest.raises(RuntimeError, match="device"):
            wrong()


def test_numpy_needs_the_processor() -> None:
    a = torch.ones(3, device="cuda")
    for wrong in (a.numpy, lambda: np.asarray(a), lambda: np.stack([a])):
        with pytest.raises(TypeError, match="host memory"):
            wrong()
    assert a.cpu().numpy().sum() == 3
    assert (float(a[0]), a.tolist(), int(a.sum())) == (1.0, [1, 1, 1], 3)


def test_calls_are_counted_and_memory_is_as_asked_for(mode: PretendDevice) -> None:
    before = mode.calls
    assert (torch.ones(3) + 1).tolist() == [2, 2, 2]
    assert mode.calls == before
    assert (torch.ones(3, device="cuda") + 1).is_cuda
    assert mode.calls > before
    with pretend_device(free=5):
        assert torch.cuda.mem_get_info() == (5, 5)
