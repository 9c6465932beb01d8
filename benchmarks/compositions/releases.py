"""C6: groups known only by private releases, in a hierarchical model of a user's own.

Protocol. Truths are drawn from the hierarchical model's prior: twelve groups of 200 to 1000
records N(location, scale^2), whose locations and log scales scatter around a common level. Each
group publishes four noisy waves and nothing else. Three posteriors of the groups' locations:

    naive    every group on its own, the mechanism's noise ignored (releases at face value)
    alone    every group on its own, noise-aware
    pooled   noise-aware, hierarchical, by HMC

The two baselines are not pooled, so pooled / naive mixes two effects: the noise is known, and
groups borrow from each other. Alone / naive shows the first on its own, pooled / alone the second.

The first two have two unknowns a group and the hierarchical prior's marginal variances; they are
exact by a grid of the same public likelihood, so no sampler is between the figures. For naive the
diagonal covariance is taken, the kinder one: with the full one, noise is read as signal in the
directions in which waves hardly vary. The data sets of one epsilon stand side by side in one
model, whose posterior is the product of theirs: one fit an epsilon. The seed is none of those on
which sizes and settings were chosen.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.infer import HMC, FitResult, Status
from probkit.privacy import NotPrivateWarning, PrivacyAccountant
from probkit.similarity import GaussianRecords, PrivateKDE, Release, ReleaseLikelihood

_GROUPS = 12
_LAW = GaussianRecords(1)
_SD = torch.tensor([1.0, 0.5], dtype=torch.float64)
"""prior sds of the common location and log scale; half of them for the spread of groups"""


_SEED = 2026


class _Found(NamedTuple):
    mean: Tensor
    low: Tensor
    high: Tensor


@row("C6", "locations of twelve groups behind private releases, truths from the prior")
def releases(context: Context) -> Iterator[Line]:
    studies, draws, warmup = context.size(24, 2), context.size(400, 20), context.size(200, 20)
    fits: list[FitResult] = []
    for epsilon in (0.25, 1.0):
        truth, published = simulate(studies, epsilon, _SEED)
        aware = ReleaseLikelihood(published, _LAW)
        blind = ReleaseLikelihood(published, _LAW, covariance="diagonal", ignore_noise=True)
        longest = context.size(200, 10)  # steps adapted in 20 draws are tiny
        engine = HMC(
            num_samples=draws,
            num_warmup=warmup,
            num_chains=2,
            dense_mass=False,
            max_leapfrogs=longest,
        )
        fits.append(engine.fit(_hierarchy, (aware, studies), seed=_SEED))
        found = {
            "pooled": _pooled(fits[-1]),
            "alone": _alone(aware),
            "naive": _alone(blind),
        }
        errors = {}
        for name, (mean, low, high) in found.items():
            share = ((low < truth) & (truth < high)).double().mean()
            errors[name] = float((mean - truth).square().mean().sqrt())
            what = f"coverage, {name}, epsilon {epsilon:g}, {studies} data sets"
            yield Line(f"{name}_{epsilon:g}", what, float(share))
        for name, other in (("alone", "naive"), ("pooled", "alone"), ("pooled", "naive")):
            key = f"over_{other}_{epsilon:g}" if name == "pooled" else f"aware_{epsilon:g}"
            what = f"RMSE, {name}, epsilon {epsilon:g} (baseline: {other})"
            yield Line(key, what, errors[name], errors[other])
    worst = max(fit.diagnostics["max_r_hat"] for fit in fits)
    failed = [fit for fit in fits if fit.status is not Status.CONVERGED]
    yield Line("r_hat", f"largest r-hat of the {len(fits)} pooled fits", worst)
    reasons = "; ".join(f"{fit.status.value}: {fit.detail}" for fit in failed)
    yield Line("failed", "pooled fits that did not converge", len(failed), reason=reasons or None)


def simulate(studies: int, epsilon: float, seed: int) -> tuple[Tensor, list[Release]]:
    """True locations (studies * groups,), and the groups' releases."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    level, spread = _SD * normal(studies, 1, 2), _SD / 2 * normal(studies, 1, 2).abs()
    theta = (level + spread * normal(studies, _GROUPS, 2)).flatten(0, 1)
    counts = torch.randint(200, 1001, (len(theta),), generator=generator).tolist()
    published = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotPrivateWarning)  # seeded noise: the row is reproducible
        for number, (location, log_scale) in enumerate(theta):
            records = location + log_scale.exp() * normal(counts[number], 1)
            sketch = PrivateKDE(1, bandwidth=4.0, num_features=4).update(records)
            accountant = PrivacyAccountant(epsilon=epsilon, delta=1e-6)
            published.append(sketch.release(accountant, testing_seed=seed + number))
    return theta[:, 0], published


def _pooled(fit: FitResult) -> _Found:
    posterior = fit.posterior
    ends = (posterior.quantile(level)["location"] for level in (0.05, 0.95))
    return _Found(posterior.mean()["location"], *ends)


def _hierarchy(likelihood: ReleaseLikelihood, studies: int) -> None:
    shape = torch.ones(studies, 1, 2, dtype=torch.float64)
    level = pyro.sample("level", dist.Normal(0 * shape, _SD).to_event(3))
    spread = pyro.sample("spread", dist.HalfNormal(shape * _SD / 2).to_event(3))
    noise = dist.Normal(torch.zeros(studies, _GROUPS, 2, dtype=torch.float64), 1.0).to_event(3)
    theta = (level + spread * pyro.sample("z", noise)).flatten(0, 1)
    pyro.deterministic("location", theta[:, 0], event_dim=1)
    pyro.sample("release", likelihood.law(theta).to_event(1), obs=likelihood.observed)


def _alone(likelihood: ReleaseLikelihood) -> _Found:
    """Exact posteriors of every group's location by a grid over location and log scale."""
    sd = _SD * 1.25**0.5
    location, log_scale = (
        torch.linspace(-3, 3, size, dtype=torch.float64) * width
        for size, width in zip((401, 61), sd, strict=True)
    )
    prior = dist.Normal(torch.zeros(2, dtype=torch.float64), sd).to_event(1)
    columns = []
    for one in location:
        theta = torch.stack([one.expand(len(log_scale)), log_scale], -1)
        batch = theta[:, None].expand(-1, len(likelihood.count), 2)
        density = likelihood.law(batch).log_prob(likelihood.observed)
        columns.append((density + prior.log_prob(theta)[:, None]).logsumexp(0))
    weight = torch.stack(columns).softmax(0)
    cumulative = weight.cumsum(0)
    low, high = (location[(cumulative < level).sum(0)] for level in (0.05, 0.95))
    return _Found((weight * location[:, None]).sum(0), low, high)
