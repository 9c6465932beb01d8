"""Each kernel equals the covariance of its own Markov chain, and of its own SDE."""

import pytest
import torch

from probkit.errors import ConfigurationError, DataError
from probkit.kernels import (
    KERNEL_NAMES,
    CosineKernel,
    MarkovScaleKernel,
    MaternKernel,
    PeriodicKernel,
    WienerKernel,
    kernel_from_name,
)
from probkit.statespace.discretization import discretize, steps_between

F64 = torch.float64
TIMES = torch.tensor([0.1, 0.1 + 1e-9, 0.2, 0.9, 1.0, 2.5, 2.6, 7.0], dtype=F64)


def joint_covariance(kernel, times):
    """Covariance of f from A and Q alone."""
    A, Q = kernel.transitions(times)
    H = kernel.output_map()
    num_points = times.shape[-1]
    joint = A.new_zeros(*A.shape[:-3], num_points, num_points)
    marginal = Q[..., 0, :, :]
    for i in range(num_points):
        if i:
            transition = A[..., i, :, :]
            marginal = transition @ marginal @ transition.mT + Q[..., i, :, :]
        cross = marginal
        for j in range(i, num_points):
            if j > i:
                cross = A[..., j, :, :] @ cross
            joint[..., i, j] = joint[..., j, i] = (H @ cross @ H.mT)[..., 0, 0]
    return joint


def composed(which):
    matern = MaternKernel(1.5, batch_shape=(2,))
    matern.lengthscale = torch.tensor([0.3, 2.0], dtype=F64)[:, None, None]
    return {
        "sum": lambda: matern + CosineKernel() * 0.3 + MaternKernel(3.5),
        "product": lambda: matern * PeriodicKernel(3) * MaternKernel(0.5),
        "product_with_wiener": lambda: matern * WienerKernel(initial_variance=0.4),
        "scaled": lambda: MarkovScaleKernel(matern, outputscale=torch.tensor([2.0, 0.1])),
        "scaled_with_own_batch": lambda: MarkovScaleKernel(MaternKernel(0.5), batch_shape=(2,)),
    }[which]()


KERNELS = [
    *KERNEL_NAMES,
    "sum",
    "product",
    "product_with_wiener",
    "scaled",
    "scaled_with_own_batch",
]


def build(name):
    if name in KERNEL_NAMES:
        return kernel_from_name(name, num_components=2, scale=3.0)
    return composed(name)


@pytest.mark.parametrize("name", KERNELS)
def test_dense_kernel_equals_state_space(name):
    kernel = build(name)
    dense = kernel(TIMES).to_dense()
    chain = joint_covariance(kernel, TIMES)
    torch.testing.assert_close(chain, dense, rtol=1e-12, atol=1e-12)
    A, Q = (part.detach() for part in kernel.transitions(TIMES))
    assert A.shape == Q.shape == (2, 8, kernel.state_dimension, kernel.state_dimension)
    assert float(A[:, 0].abs().max()) == 0
    assert float(torch.linalg.eigvalsh(Q).min()) >= -1e-14


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "categorical"])
def test_closed_transitions_equal_those_of_the_sde(name):
    kernel = build(name)
    if name == "product_with_wiener":
        with pytest.raises(ConfigurationError, match=r"use transitions\(times\)"):
            kernel.state_space()
        return
    A, Q = discretize(kernel.state_space(), steps_between(TIMES))
    chain = kernel.transitions(TIMES)
    torch.testing.assert_close(chain.A[:, 1:], A.expand_as(chain.A[:, 1:]), rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(chain.Q[:, 1:], Q.expand_as(chain.Q[:, 1:]), rtol=1e-10, atol=1e-11)
    if kernel.is_stationary:
        sde = kernel.state_space()
        balance = sde.F @ sde.P_inf + sde.P_inf @ sde.F.mT + sde.L @ sde.Qc @ sde.L.mT
        torch.testing.assert_close(balance, torch.zeros_like(balance), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_of_both_forms_agree(name):
    kernel = build(name)
    parameters = list(kernel.parameters())
    if not parameters:
        assert name == "categorical"
        return
    weight = torch.linspace(-1, 1, 64, dtype=F64).reshape(8, 8)
    dense = torch.autograd.grad((weight * kernel(TIMES).to_dense()).sum(), parameters)
    chain = torch.autograd.grad((weight * joint_covariance(kernel, TIMES)).sum(), parameters)
    for one, other in zip(dense, chain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_batched_times_and_categories():
    kernel = MaternKernel(1.5, batch_shape=(3,))
    times = torch.stack([TIMES, 2 * TIMES, TIMES + 1])
    A, Q = kernel.transitions(times)
    single = kernel[1].transitions(2 * TIMES)
    torch.testing.assert_close(A[1], single.A)
    torch.testing.assert_close(Q[1], single.Q)
    category = kernel_from_name("categorical", num_components=2)
    repeated = category.transitions(torch.tensor([0.0, 1.0, 1.0]))
    assert repeated.A[0].flatten().tolist() == [0, 0, 1]
    assert repeated.Q[0].flatten().tolist() == [1, 1, 0]


def test_bad_times_are_refused():
    with pytest.raises(DataError, match=r"times: got a decrease.*Remedy: sort"):
        MaternKernel(0.5).transitions(TIMES.flip(0))
    with pytest.raises(DataError, match="no past before its origin"):
        WienerKernel().transitions(TIMES - 5)
