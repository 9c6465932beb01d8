"""Likelihoods of the functional Tucker model as seen by the coordinate updates.

Every likelihood presents itself to the Gaussian updates as weighted observations: entry n has
target ``t_n`` and precision ``precision * weights_n``.

* Gaussian: t = y, weights 1, precision E[tau] with q(tau) Gamma.
* Student-t with df: y ~ N(f, 1 / (tau w)), w ~ Gamma(df/2, df/2); q(w) is Gamma with mean
  (df + 1) / (df + E[tau] r^2), r^2 = E (y - f)^2. With q(w) at its optimum the entry's term of the
  ELBO is  E log tau / 2 - log(2 pi) / 2 + log Gamma((df+1)/2) - log Gamma(df/2)
  + (df/2) log(df/2) - ((df+1)/2) log((df + E[tau] r^2) / 2),  exact, so that df and ranks can be
  compared by it.
* Poisson (log link), negative binomial and Bernoulli (logit link): conjugate-computation
  variational inference (Khan & Lin, AISTATS 2017): site precision -2 dE/dv, target
  m + (dE/dm) / precision; Bernoulli and negative binomial by the Polya-Gamma bound (Durante &
  Rigon 2019), which is monotone.

State entries (flat, tensors): ``noise.shape``, ``noise.rate``, ``local.df``, ``local.weights``,
``local.targets``, ``local.dispersion``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

__all__ = [
    "LIKELIHOOD_NAMES",
    "Bernoulli",
    "Gaussian",
    "Likelihood",
    "NegativeBinomial",
    "Poisson",
    "StudentT",
    "make_likelihood",
]

State = dict[str, Tensor]
_LOG_2PI = math.log(2 * math.pi)
_NOISE_SHAPE0 = 1e-3
_NOISE_RATE0 = 1e-3
_START_PRECISION = 4.0
_POISSON_WARMUP = 5


class Likelihood(ABC):
    """What the coordinate updates need to know of a likelihood."""

    name: str
    needs_moments = True
    """whether the local update reads each entry's mean and variance of f"""
    continuous = True
    """whether targets are real numbers, which are then standardised"""

    @abstractmethod
    def initial(self, targets: Float[Tensor, " N"]) -> State:
        """State entries before the first sweep."""

    @abstractmethod
    def update_local(
        self, state: State, targets: Tensor, mean: Tensor, variance: Tensor, damping: float
    ) -> State:
        """New local entries from the moments of f at each entry."""

    @abstractmethod
    def data_term(self, state: State, targets: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """The data's part of the ELBO, local posteriors included."""

    def precision(self, state: State) -> Tensor:
        """Common factor of all entries' precisions."""
        return torch.ones((), dtype=self.targets(state, None).dtype)

    def weights(self, state: State) -> Tensor | None:
        """Relative precision of each entry; None for ones."""
        return state["local.weights"]

    def targets(self, state: State, targets: Tensor | None) -> Tensor:
        """What the Gaussian updates should take as observations."""
        return state["local.targets"]

    def update_noise(self, state: State, sum_squares: Tensor, num_entries: int) -> State:
        """New noise entries from the weighted expected sum of squares."""
        return state

    def log_prior(self, state: State) -> Tensor:
        """Log density of the likelihood's own point-estimated parameters."""
        return torch.zeros(())


class Gaussian(Likelihood):
    """Homoscedastic Gaussian noise, tau ~ Gamma(1e-3, 1e-3) on the standardised target."""

    name = "gaussian"
    needs_moments = False

    def initial(self, targets: Tensor) -> State:
        shape = targets.new_tensor(_NOISE_SHAPE0 + targets.shape[0] / 2)
        return {"noise.shape": shape, "noise.rate": shape / _START_PRECISION}

    def precision(self, state: State) -> Tensor:
        return state["noise.shape"] / state["noise.rate"]

    def weights(self, state: State) -> Tensor | None:
        return None

    def targets(self, state: State, targets: Tensor | None) -> Tensor:
        assert targets is not None
        return targets

    def update_noise(self, state: State, sum_squares: Tensor, num_entries: int) -> State:
        floor = torch.finfo(sum_squares.dtype).eps * num_entries
        rate = _NOISE_RATE0 + 0.5 * sum_squares.clamp_min(floor)
        shape = rate.new_tensor(_NOISE_SHAPE0 + num_entries / 2)
        return {**state, "noise.shape": shape, "noise.rate": rate}

    def update_local(
        self, state: State, targets: Tensor, mean: Tensor, variance: Tensor, damping: float
    ) -> State:
        return state

    def data_term(self, state: State, targets: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        squares = ((targets - mean).square() + variance).sum()
        return self.data_term_of_sum(state, squares, targets.shape[0])

    def data_term_of_sum(self, state: State, sum_squares: Tensor, num_entries: int) -> Tensor:
        """The data term from the expected sum of squares alone."""
        gaussian = num_entries / 2 * (self._mean_log(state) - _LOG_2PI)
        return gaussian - 0.5 * self.precision(state) * sum_squares - self._kl(state)

    def _mean_log(self, state: State) -> Tensor:
        return torch.digamma(state["noise.shape"]) - torch.log(state["noise.rate"])

    def _kl(self, state: State) -> Tensor:
        """KL(q(tau) || Gamma(a0, b0))."""
        a, b = state["noise.shape"], state["noise.rate"]
        a0, b0 = _NOISE_SHAPE0, _NOISE_RATE0
        ratio = a0 * (torch.log(b) - math.log(b0)) + a * (b0 - b) / b
        return (a - a0) * torch.digamma(a) - torch.lgamma(a) + math.lgamma(a0) + ratio


class StudentT(Gaussian):
    """Student-t noise; the degrees of freedom are learned unless given.

    df has the prior Gamma(2, 0.1) of Juarez & Steel (2010), restricted to [1.1, 1000].
    """

    name = "student_t"
    needs_moments = True

    def __init__(self, df: float | None = None) -> None:
        self.df = df

    def initial(self, targets: Tensor) -> State:
        df = targets.new_tensor(self.df if self.df is not None else 8.0)
        local = {"local.df": df, "local.weights": torch.ones_like(targets)}
        return {**super().initial(targets), **local}

    def weights(self, state: State) -> Tensor | None:
        return state["local.weights"]

    def update_local(
        self, state: State, targets: Tensor, mean: Tensor, variance: Tensor, damping: float
    ) -> State:
        scaled = self.precision(state) * ((targets - mean).square() + variance)
        df = state["local.df"] if self.df is not None else _learn_df(scaled, state["local.df"])
        return {**state, "local.df": df, "local.weights": (df + 1) / (df + scaled)}

    def data_term(self, state: State, targets: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scaled = self.precision(state) * ((targets - mean).square() + variance)
        local = _student_terms(scaled, state["local.df"]).sum()
        gaussian = targets.shape[0] / 2 * (self._mean_log(state) - _LOG_2PI)
        return gaussian + local - self._kl(state)

    def log_prior(self, state: State) -> Tensor:
        return _df_log_prior(state["local.df"])


class Poisson(Likelihood):
    """Counts with rate exp(f). E exp(f) is taken as exp(m + v/2), the moment-matched value.

    The first sweeps fit ``log(y + 1/2) ~ N(f, 1)``: from random factors the exponential link would
    throw the sites far off.
    """

    name = "poisson"
    continuous = False

    def initial(self, targets: Tensor) -> State:
        # Laplace-like start at f = log(y + 1/2): precision = rate, target = f
        # weights y + 1/2 would let a few large counts rule the first components
        weights = torch.ones_like(targets)
        return {
            "local.weights": weights,
            "local.targets": torch.log(targets + 0.5),
        }

    def update_local(
        self, state: State, targets: Tensor, mean: Tensor, variance: Tensor, damping: float
    ) -> State:
        if int(state["age"]) <= _POISSON_WARMUP:
            return state
        rate = torch.exp((mean + 0.5 * variance).clamp(max=50.0))
        weights = rate.clamp_min(1e-10)
        return _damp(state, weights, weights * mean + (targets - rate), damping)

    def data_term(self, state: State, targets: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        rate = torch.exp((mean + 0.5 * variance).clamp(max=50.0))
        return (targets * mean - rate - torch.lgamma(targets + 1)).sum()


class Bernoulli(Likelihood):
    """Labels in {0, 1} with logit f, by the Polya-Gamma (Jaakkola-Jordan) bound."""

    name = "bernoulli"
    continuous = False

    def initial(self, targets: Tensor) -> State:
        weights = torch.full_like(targets, 0.25)
        return {"local.weights": weights, "local.targets": (targets - 0.5) / weights}

    def update_local(
        self, state: State, targets: Tensor, mean: Tensor, variance: Tensor, damping: float
    ) -> State:
        weights = _polya_gamma_mean(mean, variance)
        return _damp(state, weights, targets - 0.5, 1.0)

    def data_term(self, state: State, targets: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        tilt = (mean.square() + variance).sqrt()
        return ((targets - 0.5) * mean + _log_half_sech(tilt)).sum()


class NegativeBinomial(Likelihood):
    """Counts with mean exp(f) and size ``dispersion``: variance mean + mean^2 / dispersion.

    With h = f - log(dispersion) the probability of a success is sigmoid(h), and the Polya-Gamma
    bound with y + dispersion trials applies to h; the dispersion is learned by the ELBO unless
    given.
    """

    name = "negative_binomial"
    continuous = False

    def __init__(self, dispersion: float | None = None) -> None:
        self.dispersion = dispersion

    def initial(self, targets: Tensor) -> State:
        size = targets.new_tensor(self.dispersion if self.dispersion is not None else 10.0)
        rate = targets + 0.5
        weights = rate * size / (rate + size)
        return {
            "local.dispersion": size,
            "local.weights": weights,
            "local.targets": torch.log(rate),
        }

    def update_local(
        self, state: State, targets: Tensor, mean: Tensor, variance: Tensor, damping: float
    ) -> State:
        size = state["local.dispersion"]
        if self.dispersion is None:
            size = self._learn_size(targets, mean, variance, size)
        shift = torch.log(size)
        weights = (targets + size) * _polya_gamma_mean(mean - shift, variance)
        linear = 0.5 * (targets - size) + weights * shift
        return _damp({**state, "local.dispersion": size}, weights, linear, 1.0)

    def data_term(self, state: State, targets: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return self._bound(targets, mean, variance, state["local.dispersion"])

    def _bound(self, targets: Tensor, mean: Tensor, variance: Tensor, size: Tensor) -> Tensor:
        centred = mean - torch.log(size)
        tilt = (centred.square() + variance).sqrt()
        count = torch.lgamma(targets + size) - torch.lgamma(size) - torch.lgamma(targets + 1)
        return (
            count + 0.5 * (targets - size) * centred + (targets + size) * _log_half_sech(tilt)
        ).sum()

    def _learn_size(self, targets: Tensor, mean: Tensor, variance: Tensor, size: Tensor) -> Tensor:
        def loss(log_size: float) -> float:
            return -float(self._bound(targets, mean, variance, size.new_tensor(math.exp(log_size))))

        return _line_search(loss, size, math.log(1e-2), math.log(1e5))


def _student_terms(scaled: Tensor, df: Tensor) -> Tensor:
    half = df / 2
    constant = torch.lgamma(half + 0.5) - torch.lgamma(half) + half * torch.log(half)
    return constant - (half + 0.5) * torch.log(half + 0.5 * scaled)


def _df_log_prior(df: Tensor) -> Tensor:
    return torch.log(df) + 2 * math.log(0.1) - 0.1 * df


def _learn_df(scaled: Tensor, df: Tensor) -> Tensor:
    """Maximise the exact terms over df; the present value is kept if it is better."""

    def loss(log_df: float) -> float:
        value = df.new_tensor(math.exp(log_df))
        return -float(_student_terms(scaled, value).sum() + _df_log_prior(value))

    return _line_search(loss, df, math.log(1.1), math.log(1000.0))


def _line_search(
    loss: Callable[[float], float], current: Tensor, low: float, high: float
) -> Tensor:
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    if found.fun < loss(float(torch.log(current))):
        return current.new_tensor(math.exp(found.x))
    return current


def _polya_gamma_mean(mean: Tensor, variance: Tensor) -> Tensor:
    """E[omega] of PG(1, c), c^2 = E f^2: tanh(c/2) / (2 c)."""
    tilt = (mean.square() + variance).sqrt().clamp_min(1e-6)
    return torch.tanh(tilt / 2) / (2 * tilt)


def _log_half_sech(tilt: Tensor) -> Tensor:
    """-log(2 cosh(c/2)), the bound's constant once c^2 = E f^2."""
    return -tilt / 2 - torch.nn.functional.softplus(-tilt)


def _damp(state: State, weights: Tensor, linear: Tensor, damping: float) -> State:
    """Step of size ``damping`` in natural parameters (1: the full step)."""
    old = state["local.weights"]
    mixed = (1 - damping) * old + damping * weights
    mixed_linear = (1 - damping) * old * state["local.targets"] + damping * linear
    return {**state, "local.weights": mixed, "local.targets": mixed_linear / mixed}


def make_likelihood(name: str, options: dict[str, float] | None = None) -> Likelihood:
    """Likelihood by name: "gaussian", "student_t", "poisson", "bernoulli", "negative_binomial".

    Example:
        >>> make_likelihood("student_t", {"df": 4.0}).name
        'student_t'
    """
    return _LIKELIHOODS[name](**(options or {}))


_LIKELIHOODS: dict[str, type[Likelihood]] = {
    kind.name: kind for kind in (Gaussian, StudentT, Poisson, Bernoulli, NegativeBinomial)
}
LIKELIHOOD_NAMES = tuple(_LIKELIHOODS)
