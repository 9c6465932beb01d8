"""The typed tuples that every state-space algorithm takes and returns.

A latent Markov process ``z`` of dimension ``s`` is seen through ``f_i = H z_i`` (``m`` outputs) at
``T`` sorted points. Leading dimensions are batch dimensions, the last ones as given below.
Information about ``f`` enters as Gaussian *sites* ``exp(linear' f - f' precision f / 2)``: an
observation ``y`` with noise variance ``v`` is the site ``(precision=1/v, linear=y/v)``, a missing
one the site ``(0, 0)``, and a variational message is a site as it stands.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

__all__ = ["LTISDE", "Posterior", "Sites", "Transitions"]


class LTISDE(NamedTuple):
    """Linear time-invariant SDE ``dz = F z dx + L dB``, ``f = H z``, stationary covariance P_inf.

    For a non-stationary process (Wiener) ``P_inf`` is the covariance at the origin ``x = 0``.
    """

    F: Float[Tensor, "*batch s s"]
    L: Float[Tensor, "*batch s q"]
    Qc: Float[Tensor, "*batch q q"]
    """spectral density of the white noise"""
    H: Float[Tensor, "*batch m s"]
    P_inf: Float[Tensor, "*batch s s"]


class Transitions(NamedTuple):
    """``z_0 ~ N(0, Q_0)``, ``z_i = A_i z_{i-1} + N(0, Q_i)``; ``A_0`` is zero by convention."""

    A: Float[Tensor, "*batch T s s"]
    Q: Float[Tensor, "*batch T s s"]


class Sites(NamedTuple):
    """Gaussian information on ``f_i = H z_i`` in natural parameters; zero where data are missing.

    ``log_scale`` is added to the log normaliser, so that for observations the log normaliser is
    the log likelihood.
    """

    precision: Float[Tensor, "*batch T m m"]
    linear: Float[Tensor, "*batch T m"]
    log_scale: Float[Tensor, "*batch"]


class Posterior(NamedTuple):
    """Marginals of ``p(z | sites)`` with neighbour covariances and the log normaliser.

    ``cross[i] = Cov(z_{i+1}, z_i)``. ``log_normalizer = log E_prior[prod_i site_i(f_i)]``.
    """

    mean: Float[Tensor, "*batch T s"]
    covariance: Float[Tensor, "*batch T s s"]
    cross: Float[Tensor, "*batch T-1 s s"]
    log_normalizer: Float[Tensor, "*batch"]
