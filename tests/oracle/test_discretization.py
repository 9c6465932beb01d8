"""Transitions and process noise against arbitrary precision and closed forms."""

import mpmath
import pytest
import torch

from benchmarks.process_noise import reference_noise, t3
from probkit.errors import ConfigurationError, DataError
from probkit.statespace.discretization import (
    discretize,
    kronecker,
    rotation,
    steps_between,
    wiener_step,
    with_initial,
)
from probkit.statespace.matern import (
    integer_gammainc,
    matern_noise,
    matern_sde,
    matern_step,
    num_matern_states,
)
from probkit.statespace.types import LTISDE

F64 = torch.float64
STEPS = torch.tensor([0.0, 1e-9, 1e-5, 1e-2, 0.3, 1.0, 4.0, 40.0, 2000.0], dtype=F64)


def as_tensor(matrix):
    return torch.tensor([[float(v) for v in row] for row in matrix.tolist()], dtype=F64)


def relative_noise_error(Q, truth):
    scale = truth.diagonal(dim1=-2, dim2=-1).sqrt()
    scale = (scale.unsqueeze(-1) * scale.unsqueeze(-2)).clamp(min=1e-300)
    return float(((Q - truth).abs() / scale).max())


def test_matern_noise_is_exact_to_rounding_for_every_step():
    assert t3(points_per_decade=1) <= 1e-13


def test_the_reference_is_not_blind():
    truth = reference_noise(1.5, 1e-6)
    assert float(truth[0, 0]) == pytest.approx(4 * 1e-18 / 3, rel=1e-5)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5, 3.5])
def test_matern_noise_is_positive_definite(nu):
    Q = matern_noise(nu, torch.logspace(-12, 2.5, 60, dtype=F64))
    scale = Q.diagonal(dim1=-2, dim2=-1).rsqrt()
    correlation = scale.unsqueeze(-1) * Q * scale.unsqueeze(-2)
    assert float(torch.linalg.eigvalsh(correlation).min()) > 1e-6


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5, 3.5])
def test_generic_discretization_agrees_with_the_closed_form(nu):
    lengthscale = torch.tensor([0.3, 2.0], dtype=F64)
    x = (2 * nu) ** 0.5 * STEPS / lengthscale.unsqueeze(-1)
    A, Q = discretize(matern_sde(nu, lengthscale), STEPS)
    torch.testing.assert_close(A, matern_step(nu, x), rtol=0, atol=1e-13)
    assert relative_noise_error(Q[:, 1:], matern_noise(nu, x)[:, 1:]) <= 1e-12
    assert float(Q[:, 0].abs().max()) == 0


def test_generic_discretization_of_an_arbitrary_system_against_mpmath():
    F = torch.tensor([[0.3, 2.0, 0.0], [-1.5, -0.4, 1.0], [0.2, 0.0, -3.0]], dtype=F64)
    L = torch.tensor([[0.0, 0.5], [1.0, 0.0], [0.0, 0.7]], dtype=F64)
    Qc = torch.tensor([[1.0, 0.3], [0.3, 2.0]], dtype=F64)
    sde = LTISDE(F=F, L=L, Qc=Qc, H=torch.ones(1, 3, dtype=F64), P_inf=torch.eye(3, dtype=F64))
    steps = torch.tensor([1e-4, 0.7, 3.0], dtype=F64)
    A, Q = discretize(sde, steps)
    with mpmath.workdps(60):
        drift = mpmath.matrix(F.tolist())
        source = mpmath.matrix((L @ Qc @ L.T).tolist())
        block = mpmath.matrix(6)
        block[:3, :3], block[:3, 3:], block[3:, 3:] = drift, source, -drift.T
        for i, step in enumerate(steps.tolist()):
            exponential = mpmath.expm(block * mpmath.mpf(step))
            transition = exponential[:3, :3]
            noise = exponential[:3, 3:] * transition.T
            assert relative_noise_error(Q[i], as_tensor(noise)) <= 1e-12
            torch.testing.assert_close(A[i], as_tensor(transition), rtol=1e-12, atol=1e-13)


def test_wiener_closed_form_and_generic_agree():
    F = torch.diag(torch.ones(2, dtype=F64), 1)
    L = torch.tensor([[0.0], [0.0], [1.0]], dtype=F64)
    eye = torch.eye(3, dtype=F64)
    sde = LTISDE(F=F, L=L, Qc=eye[:1, :1], H=eye[:1], P_inf=0 * eye)
    steps = STEPS[1:-1]
    A, Q = discretize(sde, steps)
    closed_A, closed_Q = wiener_step(steps, 2)
    torch.testing.assert_close(A, closed_A, rtol=1e-12, atol=0)
    assert relative_noise_error(Q, closed_Q) <= 1e-12


def test_resonator_is_a_rotation_without_noise():
    frequency, zero = 3.0, torch.zeros(2, 2, dtype=F64)
    F = torch.tensor([[0.0, -frequency], [frequency, 0.0]], dtype=F64)
    sde = LTISDE(F=F, L=zero[:, :1], Qc=zero[:1, :1], H=zero[:1], P_inf=zero)
    A, Q = discretize(sde, STEPS[:-1])
    torch.testing.assert_close(A, rotation(frequency * STEPS[:-1]), rtol=0, atol=1e-12)
    assert float(Q.abs().max()) == 0


@pytest.mark.parametrize("order", [1, 3, 5, 7])
def test_integer_gammainc_against_mpmath(order):
    x = torch.cat([torch.logspace(-3, 2, 41, dtype=F64), torch.tensor([order / 2.0], dtype=F64)])
    values = integer_gammainc(x, order)
    for a in range(1, order + 1):
        truth = [float(mpmath.gammainc(a, 0, mpmath.mpf(v), regularized=True)) for v in x.tolist()]
        torch.testing.assert_close(
            values[:, a - 1], torch.tensor(truth, dtype=F64), rtol=2e-14, atol=0
        )


def test_gradients_to_second_order():
    x = torch.tensor([1e-3, 0.4, 1.7, 6.0], dtype=F64, requires_grad=True)
    for order in (1, 5):
        assert torch.autograd.gradcheck(lambda v, order=order: integer_gammainc(v, order), x)
        assert torch.autograd.gradgradcheck(lambda v, order=order: integer_gammainc(v, order), x)
    ell = torch.tensor([0.3], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v: tuple(discretize(matern_sde(2.5, v), STEPS[3:6])), ell
    )
    batched = torch.func.vmap(lambda v: integer_gammainc(v, 3))(x.detach())
    torch.testing.assert_close(batched, integer_gammainc(x.detach(), 3))


def test_kronecker_and_initial_condition():
    left, right = torch.randn(4, 2, 3), torch.randn(3, 2)
    torch.testing.assert_close(kronecker(left, right)[1], torch.kron(left[1], right))
    one = torch.ones(2, 1, 1)
    chain = with_initial(one, one, 5 * one[0])
    assert chain.A.flatten().tolist() == [0, 1, 1]
    assert chain.Q.flatten().tolist() == [5, 1, 1]


def test_errors_name_the_argument_and_the_remedy():
    with pytest.raises(ConfigurationError, match=r"nu: got 1\.0, expected 0\.5"):
        num_matern_states(1.0)
    with pytest.raises(DataError, match=r"between positions 1 and 2.*Remedy: sort"):
        steps_between(torch.tensor([0.0, 2.0, 1.0]))
    with pytest.raises(DataError, match="NaN or infinite"):
        steps_between(torch.tensor([0.0, float("nan")]))
    with pytest.raises(DataError, match="steps: got minimum -1"):
        discretize(matern_sde(0.5, torch.tensor(1.0)), torch.tensor([-1.0]))
