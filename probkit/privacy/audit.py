"""Audits: attempts to prove that a mechanism loses more privacy than it claims.

An audit can refute a claim, never prove one. Two kinds:

- ``distinguishing_audit``: run the mechanism many times on two neighbouring data sets, learn a
  threshold of the log-likelihood ratio on half of the runs, and bound the rates of the resulting
  test by Clopper-Pearson on the other half. (epsilon, delta)-DP forces
  true <= exp(epsilon) false + delta, so epsilon >= log((true - delta) / false) at the stated
  confidence. For zCDP the same test bounds the Gaussian trade-off mu = z(true) - z(false), and
  rho >= mu^2 / 2 for Gaussian noise.
- ``gradient_audit``: gradient ascent over a pair of records for the distance of their features,
  relative to the claimed sensitivity; a ratio above 1 is a counterexample.

Source: the tests follow Jagielski, Ullman, Oprea (NeurIPS 2020); the bounds are textbook.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import beta
from torch import Tensor

from probkit.errors import ShapeError, message
from probkit.random import as_generator

__all__ = ["AuditResult", "distinguishing_audit", "gradient_audit"]

_THRESHOLDS = 200


@dataclass(frozen=True)
class AuditResult:
    """What a distinguishing test certifies.

    Attributes:
        epsilon: lower bound on the pure epsilon of the mechanism, 0 if nothing is certified.
        rho: lower bound on rho of a Gaussian mechanism.
        confidence: of each bound.
    """

    epsilon: float
    rho: float
    confidence: float

    def refutes(self, *, epsilon: float | None = None, rho: float | None = None) -> bool:
        """Whether the claim is refuted at the stated confidence."""
        over_epsilon = epsilon is not None and self.epsilon > epsilon
        return over_epsilon or (rho is not None and self.rho > rho)


def distinguishing_audit(
    scores: NDArray[np.float64], scores_of_neighbour: NDArray[np.float64], *, alpha: float = 1e-3
) -> AuditResult:
    """Certify a lower bound on the loss from scores of releases of two neighbouring data sets.

    Args:
        scores: (N,) a score of every release of the first data set, best the log-likelihood
            ratio of the first against the second data set; any score is valid.
        scores_of_neighbour: (N,) the same for the second data set.
        alpha: probability that a bound is wrong.

    Raises:
        ShapeError: not two vectors of at least 100 scores.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> shifted, centred = 1 + rng.laplace(size=4000), rng.laplace(size=4000)
        >>> 0.3 < distinguishing_audit(shifted, centred).epsilon <= 1
        True
    """
    for values in (scores, scores_of_neighbour):
        if values.ndim != 1 or len(values) < 100:
            raise ShapeError(message("Too few scores", got=values.shape, expected="(N,), N >= 100"))
    first, second = np.asarray(scores), np.asarray(scores_of_neighbour)
    epsilons, mus = [0.0], [0.0]
    for by_mu, found in ((False, epsilons), (True, mus)):
        for likely, other in ((first, second), (-second, -first)):
            learn, check = (likely[::2], other[::2]), (likely[1::2], other[1::2])
            threshold = _best_threshold(*learn, by_mu)
            # four tests of two bounds each share the error probability
            true = _lower(check[0] > threshold, alpha / 8)
            false = 1 - _lower(check[1] <= threshold, alpha / 8)
            found.append(_mu(true, false) if by_mu else _log_ratio(true, false))
    return AuditResult(max(epsilons), max(mus) ** 2 / 2, 1 - alpha)


def gradient_audit(
    features: Callable[[Tensor], Tensor],
    draw: Callable[[torch.Generator], Tensor],
    sensitivity: float,
    *,
    relation: str,
    norm: float,
    steps: int = 200,
    restarts: int = 8,
    step_size: float = 0.05,
    seed: int = 0,
) -> float:
    """Largest distance found between the features of two records, over the claimed sensitivity.

    Args:
        features: differentiable map from one record (d,) to its contribution (D,).
        draw: a random record of the domain, to start from and to keep to its scale.
        sensitivity: the claim.
        relation: "replace" compares two records, "add_remove" one record with nothing.
        norm: 1 or 2.
        steps, restarts, step_size: of the ascent (Adam).
        seed: of the starts.

    Returns:
        The ratio; above 1 the claim is refuted.

    Example:
        >>> def draw(generator):
        ...     return torch.rand(2, generator=generator)
        >>> unit = lambda record: record / record.norm()
        >>> settings = {"relation": "replace", "norm": 2, "steps": 50, "restarts": 2}
        >>> gradient_audit(unit, draw, 2.0, **settings) <= 1.0 + 1e-6
        True
        >>> gradient_audit(unit, draw, 1.0, **settings) > 1.5
        True
    """
    generator = as_generator(seed)
    best = 0.0
    for _ in range(restarts):
        count = 2 if relation == "replace" else 1
        records = torch.stack([draw(generator) for _ in range(count)]).requires_grad_()
        optimizer = torch.optim.Adam([records], lr=step_size)
        for _ in range(steps):
            optimizer.zero_grad()
            phi = [features(record) for record in records]
            gap = phi[0] - phi[1] if count == 2 else phi[0]
            distance = torch.linalg.vector_norm(gap, ord=norm)
            best = max(best, float(distance.detach()))
            (-distance).backward()
            optimizer.step()
    return best / sensitivity


def _best_threshold(first: NDArray, second: NDArray, by_mu: bool) -> float:
    candidates = np.quantile(
        np.concatenate([first, second]), np.linspace(0.002, 0.998, _THRESHOLDS)
    )
    scores = []
    for threshold in candidates:
        # half-counts and three standard errors keep small cells from looking too good
        true = ((first > threshold).sum() + 0.5) / (len(first) + 1)
        false = ((second > threshold).sum() + 0.5) / (len(second) + 1)
        true -= 3 * np.sqrt(true * (1 - true) / len(first))
        false += 3 * np.sqrt(false * (1 - false) / len(second))
        score = _mu(true, false) if by_mu else _log_ratio(true, false)
        scores.append(score)
    return float(candidates[int(np.argmax(scores))])


def _log_ratio(true: float, false: float) -> float:
    return float(np.log(true / false)) if true > 0 and false > 0 else 0.0


def _mu(true: float, false: float) -> float:
    if not (0 < true < 1 and 0 < false < 1):
        return 0.0
    return float(ndtri(true) - ndtri(false))


def _lower(hits: NDArray[np.bool_], alpha: float) -> float:
    """One-sided Clopper-Pearson lower bound on a probability."""
    count, size = int(hits.sum()), len(hits)
    return float(beta.ppf(alpha, count, size - count + 1)) if count else 0.0
