"""The native step of a controlled path: values and derivatives of the torch one."""

import pytest
import torch

from probkit.fractional import control_step
from probkit.fractional.control_step import StepGain, choose_step, control_step_by_torch
from probkit.sde.exact import step_matrices

F64 = {"dtype": torch.float64}
needs_compiler = pytest.mark.skipif(
    control_step._library() is None, reason="there is no C++ compiler"
)
S, D, K = 4, 2, 3


def example(gain, net):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, **F64)

    matrices = step_matrices(torch.logspace(-1, 1, K, **F64), 0.3)
    law = (normal(D * (K + 2), D), normal(D)) if gain else (None, None)
    shapes = [(S, D), (S, D, K), (S, D), (S, D), (S, D) if net else None, (S, D), (D, K)]
    parts = [None if shape is None else normal(*shape).requires_grad_() for shape in shapes]
    return parts, normal(S, D, K), StepGain(matrices, *law)


@needs_compiler
@pytest.mark.parametrize(("gain", "net"), [(True, True), (True, False), (False, True)])
def test_values_and_derivatives_are_those_of_torch(gain, net):
    parts, own, fixed = example(gain, net)
    wanted = [part for part in parts if part is not None]
    assert choose_step(own) is not control_step_by_torch
    assert choose_step(own.float()) is control_step_by_torch
    found = []
    for step in (choose_step(own), control_step_by_torch):
        outputs = step(*parts, own, fixed)
        value = sum(
            (torch.arange(1, 1 + x.numel(), **F64) * x.flatten() ** 3).sum() for x in outputs
        )
        slopes = torch.autograd.grad(value, wanted, retain_graph=True)
        recorded = torch.autograd.grad(value, wanted, create_graph=True)
        curvature = torch.autograd.grad(sum(x.square().sum() for x in recorded), wanted)
        found.append((*outputs, *slopes, *recorded, *curvature))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-8)
