"""Native loss and gradient against torch, operation by operation, and random draws by moments."""

import pyro
import pytest
import torch
from torch.distributions import (
    Beta,
    Dirichlet,
    Gamma,
    LogNormal,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)

from probkit.errors import ShapeError
from probkit.infer.native import build
from probkit.infer.native.lowering import Unsupported
from probkit.infer.native.program import NativeFunction
from probkit.random import as_generator

GENERATOR = as_generator(0)
X = torch.randn(6, 4, generator=GENERATOR, dtype=torch.float64)
ROWS = torch.tensor([3, 0, 3, 5])
COUNTS = torch.tensor([0, 3, 1, 7])


def spd(t):
    root = t[:12].reshape(3, 4)
    return root @ root.mT + torch.eye(3, dtype=t.dtype)


FUNCTIONS = {
    "elementwise": lambda t: (
        torch.sin(t) * torch.tanh(t) + torch.exp(-t.square()) / (1 + t.abs()) - torch.atan(t) ** 3
    ).sum(),
    "special": lambda t: (
        torch.lgamma(1 + t.square())
        + torch.erf(t)
        + torch.special.digamma(2 + t.square())
        + torch.nn.functional.softplus(t)
        + torch.nn.functional.logsigmoid(t)
        + torch.log1p(t.square())
        + torch.expm1(t / 3)
    ).sum(),
    "branches": lambda t: (
        torch.where(t > 0, t.square(), -t)
        + t.clamp(-0.5, 0.5) * 2
        + torch.maximum(t, t.flip(0).square())
        + torch.nn.functional.relu(t - 0.3)
        + torch.remainder(3 * t, 0.7)
        + torch.fmod(3 * t, 0.7)
    ).sum(),
    "indices": lambda t: (
        (X * t[:4])[:, ROWS % 4].exp().sum() + torch.where(ROWS % 2 > 0, t[:4], 1.0).square().sum()
    ),
    "broadcast": lambda t: ((t[:4] * X - t[4:10, None]) ** 2 / (1 + t[10] ** 2)).mean(),
    "reductions": lambda t: (
        (X * t[:4]).sum(0).square().sum()
        + (X * t[:4]).sum(1, keepdim=True).exp().sum()
        + torch.logsumexp(X * t[4:8], 1).sum()
        + torch.softmax(t, 0)[2]
        + (X * t[:4]).amax(1).sum()
        + t.reshape(3, 5).var(0).sum()
    ),
    "views": lambda t: (
        t.reshape(3, 5).mT.reshape(-1)[2:11].cumsum(0).square().sum()
        + (t[:6].reshape(2, 3).permute(1, 0) @ t[:4].reshape(2, 2)).diagonal().sum()
        + torch.cat([t[:3], t[5:9] * 2, t[:1]]).sin().sum()
        + torch.stack([t[:4], t[4:8]]).tril().sum()
    ),
    "matrices": lambda t: (
        (X @ t[:12].reshape(4, 3)).square().sum()
        + (X.mT @ t[:6]).sin().sum()
        + torch.einsum("ij,j,i->", X, t[:4], t[4:10])
        + torch.bmm(t[:12].reshape(2, 2, 3), t[:12].reshape(2, 3, 2)).sum()
        + t[:5] @ t[5:10]
    ),
    "cholesky": lambda t: (
        torch.linalg.cholesky(spd(t)).diagonal().log().sum()
        + torch.cholesky_solve(t[12:15, None], torch.linalg.cholesky(spd(t))).square().sum()
        + torch.linalg.solve_triangular(
            torch.linalg.cholesky(spd(t)), t[:6].reshape(3, 2), upper=False
        ).sum()
    ),
    "batched cholesky": lambda t: (
        torch.linalg.cholesky(spd(t).expand(2, 3, 3) * t[13:15, None, None].exp())
        .diagonal(dim1=-2, dim2=-1)
        .log()
        .sum()
    ),
    "products with factors": lambda t: (
        (torch.linalg.cholesky(spd(t)) @ t[:6].reshape(3, 2)).sin().sum()
        + (torch.linalg.cholesky(spd(t)).mT @ t[:6].reshape(3, 2)).sin().sum()
        + (torch.linalg.cholesky(spd(t)) @ t[:6].reshape(2, 3).mT).sin().sum()
        + (
            torch.linalg.cholesky(spd(t).expand(2, 3, 3) * t[13:15, None, None].exp()).mT
            @ t[:12].reshape(2, 3, 2)
        )
        .sin()
        .sum()
        + (torch.linalg.cholesky(spd(t))[:2].mT @ t[:6].reshape(2, 3)).sin().sum()
    ),
    "indexing": lambda t: (
        (X[ROWS] @ t[:4]).square().sum()
        + t[ROWS].exp().sum()
        + (t[:12].reshape(6, 2)[ROWS] * X[ROWS][:, :2]).sum()
        + torch.nn.functional.embedding(ROWS, t[:12].reshape(6, 2)).square().sum()
    ),
    "assignment": lambda t: _assigned(t).square().sum(),
    "normal laws": lambda t: (
        Normal(t[0], t[1].exp()).log_prob(X).sum()
        + LogNormal(t[2], t[3].exp()).log_prob(X.exp()).sum()
        + StudentT(3 + t[4].exp(), t[5], t[6].exp()).log_prob(X).sum()
        + MultivariateNormal(t[:4], torch.eye(4).double() + t[7].exp()).log_prob(X).sum()
    ),
    "other laws": lambda t: (
        Gamma(t[0].exp(), t[1].exp()).log_prob(X.exp()).sum()
        + Beta(t[2].exp(), t[3].exp()).log_prob(X.sigmoid()).sum()
        + Poisson(t[4].exp()).log_prob(COUNTS).sum()
        + NegativeBinomial(t[5].exp(), logits=t[6]).log_prob(COUNTS).sum()
        + Dirichlet(t[7:11].exp()).log_prob(X.softmax(-1)).sum()
        + torch.nn.functional.binary_cross_entropy_with_logits(X @ t[:4], (X[:, 0] > 0).double())
    ),
    "a constant gradient": lambda t: t.sum() + 2.0,
}


def _assigned(t):
    out = torch.zeros(4, 5, dtype=t.dtype)
    out[1] = t[:5]
    out[:, 2] = out[:, 2] + t[5:9]
    out[ROWS[:2], 0] = t[9:11]
    return torch.nn.functional.pad(out, (1, 2)) * 2


def native(function, t, *data):
    def both(values, *tensors):
        gradient, loss = torch.func.grad_and_value(function)(values, *tensors)
        return loss, gradient

    with pyro.validation_enabled(False):
        return NativeFunction(both, t, data)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_and_gradient_are_those_of_torch(name):
    function = FUNCTIONS[name]
    t = torch.randn(15, generator=as_generator(1), dtype=torch.float64, requires_grad=True)
    compiled = native(function, t.detach())
    for scale in (1.0, 0.3):
        point = (scale * t).detach().requires_grad_()
        expected = function(point)
        (gradient,) = torch.autograd.grad(expected, point)
        loss, found, failed = compiled(point)
        assert not failed
        assert loss == pytest.approx(float(expected.detach()), rel=1e-11, abs=1e-11)
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-10)


def test_float32_stays_float32():
    t = torch.randn(15, generator=as_generator(1))
    compiled = native(lambda v: (v.exp() * 0.5).sum(), t)
    loss, gradient, _ = compiled(t)
    assert gradient.dtype == torch.float32
    assert loss == pytest.approx(float((t.exp() * 0.5).sum()), rel=1e-6)
    torch.testing.assert_close(gradient, t.exp() * 0.5)


def test_draws_have_their_moments():
    """Mean and variance of draws, from the loss, over many calls with other seeds."""
    t = torch.zeros(1, dtype=torch.float64)
    shape = (4000,)
    cases = {
        "normal": (lambda v: torch.randn(shape, dtype=v.dtype).sum() + 0 * v[0], 0.0, 1.0),
        "squares": (
            lambda v: torch.randn(shape, dtype=v.dtype).square().sum() + 0 * v[0],
            1.0,
            2.0,
        ),
        "uniform": (lambda v: torch.rand(shape, dtype=v.dtype).sum() + 0 * v[0], 0.5, 1 / 12),
    }
    for function, mean, variance in cases.values():
        compiled = native(function, t)
        values = torch.tensor([compiled(t, seed)[0] for seed in range(200)]) / shape[0]
        error = (variance / shape[0]) ** 0.5
        assert float(values.mean()) == pytest.approx(mean, abs=4 * error / 200**0.5)
        assert float(values.std()) == pytest.approx(error, rel=0.2)
    assert compiled(t, 5)[0] == compiled(t, 5)[0]
    assert compiled(t, 5)[0] != compiled(t, 6)[0]


def test_minibatches_are_uniform_without_replacement():
    weights = torch.arange(10, dtype=torch.float64)
    t = torch.zeros(10, dtype=torch.float64)

    def function(values, w):
        rows = torch.randperm(10)[:3]
        return (values + w)[rows].sum()

    compiled = native(function, t, weights)
    gradients = torch.stack([compiled(t, seed)[1] for seed in range(3000)])
    assert set(gradients.unique().tolist()) == {0.0, 1.0}
    assert bool((gradients.sum(1) == 3).all())
    expected = torch.full((10,), 0.3, dtype=torch.float64)
    torch.testing.assert_close(gradients.mean(0), expected, rtol=0, atol=0.04)


def test_another_size_is_refused():
    compiled = native(lambda v: v.square().sum(), torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ShapeError, match="recorded for other parameters"):
        compiled(torch.zeros(4, dtype=torch.float64))


def test_a_failed_factorisation_is_reported():
    def function(v):
        matrix = torch.eye(2, dtype=v.dtype) * v[0]
        return torch.linalg.cholesky(matrix).sum()

    compiled = native(function, torch.ones(1, dtype=torch.float64))
    assert compiled(torch.ones(1, dtype=torch.float64))[2] is False
    assert compiled(-torch.ones(1, dtype=torch.float64))[2] is True


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda v: v.sum() if bool(v[0] > 0) else v.prod(), "depend on the value"),
        (lambda v: v.sum() * v[0].item(), "value of a tensor is read"),
        (lambda v: torch.linalg.eigvalsh(torch.diag(v)).sum(), "operation"),
    ],
)
def test_what_cannot_be_compiled_says_why(function, reason):
    with pytest.raises(Unsupported, match=reason):
        native(function, torch.ones(3, dtype=torch.float64))


def test_the_cache_is_used_and_never_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBKIT_CACHE_DIR", str(tmp_path))
    t = torch.ones(3, dtype=torch.float64)
    native(lambda v: v.sum() * 3, t)
    (path,) = (tmp_path / "native").glob("*.so")
    first = path.stat().st_mtime_ns
    native(lambda v: v.sum() * 3, t)
    assert path.stat().st_mtime_ns == first
    other = tmp_path / "native" / "copy"
    other.write_bytes(path.read_bytes()[:100])
    other.replace(path)
    assert native(lambda v: v.sum() * 3, t)(t)[0] == 9.0
    assert path.stat().st_size > 100


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PROBKIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    build._compiler.cache_clear()
    try:
        with pytest.raises(Unsupported, match="no C\\+\\+ compiler"):
            native(lambda v: v.sum() * 4, torch.ones(3, dtype=torch.float64))
    finally:
        build._compiler.cache_clear()
