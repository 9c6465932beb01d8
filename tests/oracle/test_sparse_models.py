"""Sparse recovery's distributions, kernel and Pyro model against dense algebra and the solver."""

from functools import reduce

import gpytorch
import pyro
import pytest
import torch
from torch.func import grad, vmap

from probkit import fit
from probkit.distributions import ComplexNormal, KroneckerSparseNormal
from probkit.errors import ConfigurationError, DtypeError, NumericalError, ShapeError
from probkit.infer import HMC, NUTS, SVI
from probkit.infer.potential import flat_potential
from probkit.infer.pyro_data import ModelArguments
from probkit.kernels import KroneckerSBLKernel
from probkit.linalg.kronecker_gaussian import kronecker_log_evidence
from probkit.sparse import (
    KroneckerSBL,
    draw_coefficients,
    kronecker_sparse_model,
    nmse,
    simulate_recovery,
)

F64, C128 = torch.float64, torch.complex128
ROWS, ATOMS = (3, 4), (5, 3)  # one factor wide, one tall


def parts(dtype=F64, batch=(), seed=0):
    g = torch.Generator().manual_seed(seed)
    pairs = zip(ROWS, ATOMS, strict=True)
    factors = [torch.randn(*batch, m, n, generator=g, dtype=dtype) for m, n in pairs]
    scales = [torch.rand(*batch, n, generator=g, dtype=F64) for n in ATOMS]
    noise = torch.rand(batch, generator=g, dtype=F64) + 0.1
    return factors, scales, noise


def dense(factors, scales, noise):
    """Dictionary, prior variances and covariance of one problem."""
    whole, prior = reduce(torch.kron, factors), reduce(torch.kron, scales).to(factors[0].dtype)
    eye = torch.eye(len(whole), dtype=whole.dtype)
    return whole, prior, (whole * prior) @ whole.mH + noise * eye


def dense_log_prob(covariance, y):
    """Log density of one vector, normal or circular complex normal."""
    half = 1.0 if y.is_complex() else 0.5
    quadratic = (y.conj() @ torch.linalg.solve(covariance, y)).real
    constant = len(y) * torch.log(torch.tensor(torch.pi / half, dtype=F64))
    return -half * (torch.linalg.slogdet(covariance)[1] + quadratic + constant)


class TestComplexNormal:
    def test_density_is_that_of_two_independent_parts(self):
        loc, scale = torch.tensor([1 + 2j, -1j], dtype=C128), torch.tensor([0.5, 2.0], dtype=F64)
        value = torch.tensor([0.3 - 1j, 2.0 + 1j], dtype=C128)
        pair = torch.distributions.Normal(torch.view_as_real(loc), (scale / 2**0.5).unsqueeze(-1))
        expected = pair.log_prob(torch.view_as_real(value)).sum(-1)
        assert torch.allclose(ComplexNormal(loc, scale).log_prob(value), expected, rtol=1e-13)

    def test_draws_have_the_law_s_moments(self):
        law = ComplexNormal(torch.tensor(1 - 1j, dtype=C128), 2.0).expand((3,))
        with pyro.poutine.seed(rng_seed=0):
            x = law.sample((20_000,))
        assert (x.mean(0) - law.mean).abs().max() < 4 * 2 / 20_000**0.5
        assert torch.allclose((x - law.mean).abs().square().mean(0), law.variance, rtol=0.05)
        assert ((x - law.mean) ** 2).mean(0).abs().max() < 0.15  # circular

    def test_entropy_is_the_mean_of_minus_the_log_density(self):
        law = ComplexNormal(torch.zeros((), dtype=C128), 0.7)
        with pyro.poutine.seed(rng_seed=1):
            x = law.sample((20_000,))
        assert abs(-law.log_prob(x).mean() - law.entropy()) < 4 / 20_000**0.5

    @pytest.mark.parametrize("dtypes", [(F64, F64), (C128, C128)])
    def test_refuses_other_dtypes(self, dtypes):
        with pytest.raises(DtypeError, match="complex mean and a real scale"):
            ComplexNormal(torch.zeros(1, dtype=dtypes[0]), torch.ones(1, dtype=dtypes[1]))


@pytest.mark.parametrize("dtype", [F64, C128])
class TestKroneckerSparseNormal:
    def test_density_equals_dense(self, dtype):
        factors, scales, noise = parts(dtype, (2,))
        law = KroneckerSparseNormal(factors, scales, noise, num_snapshots=3)
        assert law.batch_shape == (2,) and law.event_shape == (3, *ROWS)
        with pyro.poutine.seed(rng_seed=0):
            y = law.sample((4,))
        found = law.log_prob(y)
        assert found.shape == (4, 2)
        for b in range(2):
            _, _, c = dense([a[b] for a in factors], [s[b] for s in scales], noise[b])
            for s in range(4):
                expected = sum(dense_log_prob(c, column.flatten()) for column in y[s, b])
                assert torch.allclose(found[s, b], expected, rtol=1e-11)

    def test_batch_dimensions_broadcast_and_expand(self, dtype):
        factors, scales, noise = parts(dtype)
        law = KroneckerSparseNormal(factors, scales, torch.stack([noise, 2 * noise]))
        y = torch.ones(ROWS, dtype=dtype)
        singly = [KroneckerSparseNormal(factors, scales, v).log_prob(y) for v in (noise, 2 * noise)]
        assert torch.allclose(law.log_prob(y), torch.stack(singly), rtol=1e-12)
        assert torch.allclose(law.expand((3, 2)).log_prob(y)[1], torch.stack(singly), rtol=1e-12)

    @pytest.mark.parametrize("equal", [False, True], ids=["generic", "equal eigenvalues"])
    def test_gradients_in_everything(self, dtype, equal):
        factors, scales, noise = parts(dtype)
        if equal:
            factors = [torch.eye(*a.shape, dtype=dtype) for a in factors]
            scales = [torch.ones_like(s) for s in scales]
        y = torch.randn(ROWS, dtype=dtype, generator=torch.Generator().manual_seed(1))
        inputs = [t.clone().requires_grad_() for t in (*factors, *scales, noise, y)]

        def log_prob(a, b, g, h, v, y):
            # checks of arguments would refuse the numerical steps of complex tensors
            return KroneckerSparseNormal([a, b], [g, h], v, validate_args=False).log_prob(y)

        assert torch.autograd.gradcheck(log_prob, inputs, eps=1e-6, atol=1e-5)

    def test_transformed_gradient_equals_plain(self, dtype):
        factors, scales, noise = parts(dtype)
        y = torch.randn(2, *ROWS, dtype=dtype, generator=torch.Generator().manual_seed(1))

        def log_prob(g, v):
            law = KroneckerSparseNormal(factors, [g, scales[1]], v, num_snapshots=2)
            return law.log_prob(y)

        g, v = scales[0].clone().requires_grad_(), noise.clone().requires_grad_()
        plain = torch.autograd.grad(log_prob(g, v), (g, v))
        found = vmap(grad(log_prob, (0, 1)))(scales[0].unsqueeze(0), noise.unsqueeze(0))
        for a, b in zip(plain, found, strict=True):
            assert torch.allclose(a, b[0], rtol=1e-12)

    def test_second_derivatives_are_refused_not_wrong(self, dtype):
        factors, scales, noise = parts(dtype)
        v = noise.clone().requires_grad_()
        law = KroneckerSparseNormal(factors, scales, v)
        value = law.log_prob(torch.ones(ROWS, dtype=dtype))
        with pytest.raises(NumericalError, match="first derivative only"):
            torch.autograd.grad(value, v, create_graph=True)

        def log_prob(noise):
            return KroneckerSparseNormal(factors, scales, noise).log_prob(y)

        y = torch.ones(ROWS, dtype=dtype)
        torch.func.vmap(torch.func.grad(log_prob))(noise.expand(2))
        with pytest.raises(NumericalError, match="first derivative only"):
            torch.func.hessian(log_prob)(noise)

    def test_posterior_equals_dense(self, dtype):
        factors, scales, noise = parts(dtype)
        whole, prior, c = dense(factors, scales, noise)
        y = torch.randn(2, *ROWS, dtype=dtype, generator=torch.Generator().manual_seed(1))
        law = KroneckerSparseNormal(factors, scales, noise, num_snapshots=2)
        found = law.posterior(y)
        gain = (prior.unsqueeze(-1) * whole.mH) @ torch.linalg.inv(c)
        mean = (y.flatten(1) @ gain.mT).reshape(2, *ATOMS)
        covariance = torch.diag(prior) - gain @ (whole * prior)
        assert torch.allclose(found.mean, mean, rtol=1e-10)
        variance = covariance.diagonal().real.reshape(ATOMS).expand(2, *ATOMS)
        assert torch.allclose(found.variance, variance, rtol=1e-9)
        assert torch.allclose(found.log_evidence, law.log_prob(y), rtol=1e-12)
        draws = found.sample(4000, seed=0).flatten(2)[:, 0] - mean[0].flatten()
        empirical = draws.mT @ draws.conj() / 4000
        error = (empirical - covariance).abs() / (
            covariance.diagonal().real.unsqueeze(-1) * covariance.diagonal().real
        ).sqrt()
        assert error.max() < 5 * (2 / 4000) ** 0.5

    def test_draws_have_the_law_s_variance(self, dtype):
        law = KroneckerSparseNormal(*parts(dtype))
        with pyro.poutine.seed(rng_seed=0):
            y = law.sample((20_000,))
        assert torch.allclose(y.abs().square().mean(0), law.variance, rtol=0.08)

    def test_no_density_at_scales_that_are_no_numbers(self, dtype):
        factors, scales, noise = parts(dtype)
        y = torch.ones(ROWS, dtype=dtype)
        for bad in (torch.inf, torch.nan, 1e200):
            law = KroneckerSparseNormal(factors, [scales[0] * bad, scales[1]], noise)
            assert law.log_prob(y) == -torch.inf


def test_factors_and_scales_must_fit():
    factors, scales, noise = parts()
    with pytest.raises(ShapeError, match="needs its scales"):
        KroneckerSparseNormal(factors, scales[::-1], noise)


class OneGP(gpytorch.models.ExactGP):
    def __init__(self, kernel, x, y, likelihood):
        super().__init__(x, y, likelihood)
        self.mean_module, self.covar_module = gpytorch.means.ZeroMean(), kernel

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


class TestKernel:
    @pytest.mark.parametrize("atoms, rows", [(6, (4, 5, 6)), (3, (4, 5, 6)), (15, (8, 12, 15))])
    def test_marginal_likelihood_is_the_evidence(self, atoms, rows):
        p = simulate_recovery(num_atoms=atoms, num_measurements=rows, num_nonzero=2, seed=1)
        g = torch.Generator().manual_seed(0)
        scales = [torch.rand(atoms, generator=g, dtype=F64) + 0.1 for _ in rows]
        kernel = KroneckerSBLKernel(p.dictionaries, scales=scales)
        positive = gpytorch.constraints.Positive()
        likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=positive).double()
        likelihood.noise = p.noise
        gp = OneGP(kernel, kernel.grid(), p.y.flatten(), likelihood)
        objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, gp)
        value = objective(gp(kernel.grid()), p.y.flatten()) * p.y.numel()
        value.backward()
        free = [s.clone().requires_grad_() for s in scales]
        noise = torch.tensor(p.noise, dtype=F64)
        evidence = kronecker_log_evidence(p.dictionaries, free, noise, p.y.unsqueeze(0))
        evidence.backward()
        assert abs(value.item() - evidence.item()) <= 1e-8 * (1 + abs(evidence.item()))
        for k, s in enumerate(free):
            raw = kernel.get_parameter(f"raw_scale_{k}").grad
            assert torch.allclose(raw, s.grad * scales[k], rtol=1e-7, atol=1e-7)

    def test_other_rows_are_entries_of_the_grid_s_covariance(self):
        factors, scales, _ = parts()
        kernel = KroneckerSBLKernel(factors, scales=scales)
        grid = kernel.grid()
        whole = kernel(grid).to_dense()
        assert torch.allclose(whole, dense(factors, scales, 0.0)[2], rtol=1e-12)
        some = torch.tensor([7, 2, 2])
        assert torch.allclose(kernel(grid[some], grid).to_dense(), whole[some], rtol=1e-12)
        assert torch.allclose(kernel(grid[some], diag=True), whole.diagonal()[some], rtol=1e-12)

    def test_bad_input(self):
        factors, scales, _ = parts()
        with pytest.raises(DtypeError, match="for real data"):
            KroneckerSBLKernel(parts(C128)[0])
        with pytest.raises(ShapeError, match="needs its scales"):
            KroneckerSBLKernel(factors, scales=scales[::-1])
        kernel = KroneckerSBLKernel(factors)
        for wrong in (torch.full((1, 2), 0.5), torch.full((1, 2), 9.0), torch.zeros(1, 3)):
            with pytest.raises(ShapeError, match="rows"):
                kernel(wrong.double()).to_dense()


SMALL = {"num_atoms": 8, "num_measurements": (7, 8), "num_nonzero": 3, "snr_db": 20.0}


def test_model_s_likelihood_is_the_solver_s_evidence_with_its_maximum_there():
    p = simulate_recovery(**SMALL, seed=4)
    found = KroneckerSBL(noise=p.noise).recover(p.y, p.dictionaries)
    kept = found.posterior
    scales = [
        torch.zeros(8, dtype=F64).scatter(0, i[0], g[0]).requires_grad_()
        for i, g in zip(kept.index, kept.scales, strict=True)
    ]
    noise = torch.tensor(p.noise, dtype=F64)
    law = KroneckerSparseNormal(p.dictionaries, scales, noise)
    value = law.log_prob(p.y)
    assert torch.allclose(value, found.log_evidence, rtol=1e-10)
    assert torch.allclose(law.posterior(p.y).mean, found.mean, rtol=1e-8, atol=1e-12)
    value.backward()
    for g in scales:  # no slope in the logarithm of what is kept
        assert (g.grad * g.detach()).abs().max() < 0.05


@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("prior", ["gaussian", "horseshoe"])
def test_potential_has_a_graph_with_the_right_gradient(prior, dtype):
    p = simulate_recovery(**SMALL, is_complex=dtype is C128, num_snapshots=2, seed=1)
    data = {"y": p.y, "dictionaries": p.dictionaries, "prior": prior, "snapshots": True}
    generator = torch.Generator().manual_seed(0)
    potential = flat_potential(kronecker_sparse_model, ModelArguments.of(data), generator)
    z = torch.randn(1, potential.size, generator=generator, dtype=F64)
    _, gradient = potential.value_and_gradient(z)
    steps = 1e-6 * torch.eye(potential.size, dtype=F64)
    up, down = (potential.value_and_gradient(z + s)[0] for s in (steps, -steps))
    assert torch.allclose((up - down) / 2e-6, gradient[0], rtol=1e-5, atol=1e-4)


def fully_bayesian(engine, p, **settings):
    data = {"y": p.y, "dictionaries": p.dictionaries, **settings}
    result = fit(kronecker_sparse_model, data, engine=engine, seed=0)
    snapshots = settings.get("snapshots", False)
    found = draw_coefficients(
        result.posterior, p.y, p.dictionaries, snapshots=snapshots, num_samples=200
    )
    return result, found


@pytest.mark.parametrize(
    "prior, engine",
    [
        (
            "horseshoe",
            HMC(num_samples=50, num_warmup=100, num_chains=8, max_leapfrogs=20, compile="off"),
        ),
        ("gaussian", SVI(steps=1200, learning_rate=0.05, compile="off")),
    ],
    ids=["HMC", "SVI"],
)
def test_engines_agree_with_the_solver_where_data_decide_the_support(prior, engine):
    # from one vector, the support is uncertain: a full posterior then differs from a point estimate
    p = simulate_recovery(**SMALL, num_snapshots=8, seed=4)
    solver = KroneckerSBL().recover(p.y, p.dictionaries, snapshots=True)
    result, found = fully_bayesian(engine, p, prior=prior, snapshots=True)
    assert result.provenance["engine"] == type(engine).__name__
    on = p.x != 0
    assert nmse(found.mean, p.x) < 1.3 * nmse(solver.mean, p.x)
    assert ((found.mean - solver.mean)[on].abs() < 1.5 * solver.sd[on]).all()
    ratio = (found.sd / solver.sd)[on]
    assert ratio.min() > 0.9 and ratio.max() < 1.6  # wider: the scales are uncertain too
    lower, upper = found.interval(0.9)
    assert 0.8 < ((lower <= p.x) & (p.x <= upper))[on].double().mean() < 0.99


def test_nuts_runs_the_model():
    p = simulate_recovery(num_atoms=3, num_measurements=(4, 4), num_nonzero=1, seed=1)
    result, found = fully_bayesian(NUTS(num_samples=15, num_warmup=15, max_tree_depth=4), p)
    assert result.posterior.draws["local_0"].shape == (1, 15, 3)
    assert found.draws.isfinite().all()


def test_known_noise_is_asked_for_again():
    p = simulate_recovery(**SMALL, seed=4)
    data = {"y": p.y, "dictionaries": p.dictionaries, "noise": p.noise}
    result = fit(kronecker_sparse_model, data, engine=SVI(steps=5, compile="off"))
    with pytest.raises(ConfigurationError, match="known noise"):
        draw_coefficients(result.posterior, p.y, p.dictionaries)
    found = draw_coefficients(result.posterior, p.y, p.dictionaries, noise=p.noise, num_samples=5)
    assert found.mean.shape == p.x.shape

    def with_batch(sites):
        first, *others = p.dictionaries
        return [first.expand(len(sites["log_amplitude"]), *first.shape), *others]

    again = draw_coefficients(result.posterior, p.y, with_batch, noise=p.noise, num_samples=5)
    torch.testing.assert_close(again.mean, found.mean)
    torch.testing.assert_close(again.draws, found.draws)
    with pytest.raises(ConfigurationError, match="probability"):
        found.interval(1.0)


@pytest.mark.parametrize(
    "settings, error, text",
    [
        ({"prior": "laplace"}, ConfigurationError, "Unknown prior"),
        ({"noise": -1.0}, ConfigurationError, "positive"),
        ({"global_scale": 0.0}, ConfigurationError, "positive"),
        ({"snapshots": True}, ShapeError, "do not fit"),
    ],
)
def test_model_refuses(settings, error, text):
    p = simulate_recovery(**SMALL, seed=4)
    with pytest.raises(error, match=text):
        kronecker_sparse_model(p.y, p.dictionaries, **settings)
