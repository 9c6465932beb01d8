"""What a native function keeps for its derivative goes with the graph.

A node of autograd that holds its own output is a cycle the garbage collector cannot see: every
evaluation would stay in memory until the process ends.
"""

import weakref

import pytest
import torch

from probkit.fractional import control_step, native_filter, varying_filter
from probkit.fractional.control_step import StepGain, choose_step
from probkit.fractional.native_system import quick_system
from probkit.fractional.quick_filter import native_pieces
from probkit.fractional.series import prepare_series
from probkit.fractional.varying import VaryingSeries
from probkit.linalg.kronecker_gaussian import kronecker_log_evidence
from probkit.linalg.log_normalizer import log_normalizer
from probkit.sde.exact import step_matrices

F64 = {"dtype": torch.float64}
Y = torch.linspace(-1.0, 2.0, 9, **F64).square()


def leaf(*shape):
    return torch.full(shape, 0.4, **F64, requires_grad=True)


def system():
    return quick_system(leaf(), leaf(), None, len(Y))


def pieces():
    return native_pieces(system(), prepare_series(Y, None, "levels"))


def varying():
    problem = VaryingSeries(prepare_series(Y, None, "levels"), "increment")._problem
    steps, modes = len(problem.index), problem.a.shape[-1]
    loadings = leaf(steps, modes), leaf(steps, modes)
    return varying_filter.filter_varying(problem, *loadings, leaf(), leaf())


def controlled():
    gain = StepGain(step_matrices(torch.logspace(-1, 1, 3, **F64), 0.3), None, None)
    shapes = [(2, 1), (2, 1, 3), (2, 1), (2, 1), (2, 1), (2, 1), (1, 3)]
    own = torch.zeros(2, 1, 3, **F64)
    return choose_step(own)(*(leaf(*shape) for shape in shapes), own, gain)


def chain():
    diagonal = 3 * torch.eye(2, **F64).expand(4, 2, 2) + 0 * leaf(4, 2, 2)
    return (log_normalizer(diagonal, leaf(3, 2, 2) / 4, leaf(4, 2)),)


def kronecker():
    factors = [torch.eye(3, **F64), torch.eye(2, **F64)]
    y = torch.ones(1, 3, 2, **F64)
    return (kronecker_log_evidence(factors, [leaf(3), leaf(2)], leaf(), y),)


CASES = {
    "_SystemBackward": (system, native_filter),
    "_PiecesBackward": (pieces, native_filter),
    "_PiecesBackward of varying": (varying, varying_filter),
    "_StepBackward": (controlled, control_step),
    "_LogNormalizerBackward": (chain, None),
    "_LogEvidenceBackward": (kronecker, None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_node_is_freed_with_its_value(name):
    make, module = CASES[name]
    if module is not None and module._library() is None:
        pytest.skip("there is no C++ compiler")
    outputs = make()
    node = weakref.ref(outputs[0].grad_fn)
    assert type(node()).__name__ == name.split()[0]
    sum(x.sum() for x in outputs if x.requires_grad).backward()
    del outputs
    assert node() is None
