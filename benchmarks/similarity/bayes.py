"""D15: coverage of noise-aware posteriors of a Gaussian behind a private release."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, row
from probkit.infer import HMC
from probkit.privacy import PrivacyAccountant
from probkit.similarity import GaussianRecords, NoiseAwareModel, PrivateKDE

RECORDS, WAVES = 3000, 60
LAW = GaussianRecords(2, scale_median=0.75, scale_spread=0.3)
ENGINE = HMC(num_chains=8, num_warmup=60, num_samples=100)
CHOICES = {
    "full": {},
    "naive": {"covariance": "diagonal", "ignore_noise": True},
}


@row("D15", "coverage of 90 % intervals of location and scale, epsilon .5, delta 1e-6")
def coverage(context: Context) -> Iterator[Line]:
    replications = context.size(240, 4)
    covered: dict[str, list[Tensor]] = {name: [] for name in CHOICES}
    for seed in range(replications):
        for name, hits in replicate(seed).items():
            covered[name].append(hits)
    names = {"full": "noise-aware, full covariance", "naive": "noise ignored"}
    for name, hits in covered.items():
        share = torch.stack(hits).mean(-1)
        yield Line(name, f"coverage, {names[name]}, {replications} runs", float(share.mean()))
        error = float(share.std()) / math.sqrt(replications)
        yield Line(f"{name}_error", f"its standard error, {names[name]}", error)


def replicate(seed: int) -> dict[str, Tensor]:
    """Draw truth, records and release; whether each interval holds the truth, (3,)."""
    generator = torch.Generator().manual_seed(seed)
    mean, sd = LAW.prior()
    truth = mean + sd * torch.randn(3, generator=generator, dtype=torch.float64)
    noise = torch.randn(RECORDS, 2, generator=generator, dtype=torch.float64)
    records = truth[:2] + truth[2].exp() * noise
    sketch = PrivateKDE(2, bandwidth=math.sqrt(2) / 0.8, num_features=WAVES, seed=seed)
    release = sketch.update(records).release(PrivacyAccountant(epsilon=0.5, delta=1e-6))
    found = {}
    for name, choices in CHOICES.items():
        posterior = ENGINE.fit(NoiseAwareModel(release, LAW, **choices), seed=seed).posterior
        low, high = (
            torch.cat([q["location"].reshape(-1), q["scale"].reshape(-1).log()])
            for q in (posterior.quantile(0.05), posterior.quantile(0.95))
        )
        found[name] = ((low < truth) & (truth < high)).double()
    return found
