"""A Gaussian process on sorted coordinates as a Pyro distribution, in linear time.

The prior is a Markov kernel; *sites* ``exp(linear f - precision f^2 / 2)`` turn it into the exact
posterior process given Gaussian information, or a variational approximation. Costs are
``O(T s^3)`` for ``s`` states: the density by cyclic reduction in ``log2 T`` steps (a sequential
filter where points nearly coincide), samples by a prefix scan, posterior samples by Matheron's
rule, ``f + E[f | sites - pseudo-observations of a prior draw]``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.distributions.utils import lazy_property

from probkit.errors import ConfigurationError, DataError, ShapeError, message
from probkit.kernels.markov import MarkovKernel
from probkit.linalg.small import from_trailing, semidefinite_root, to_trailing
from probkit.statespace.discretization import steps_between
from probkit.statespace.noise_free import condition_on_values, log_density
from probkit.statespace.sites import observe
from probkit.statespace.smoother import log_normalizer, smooth
from probkit.statespace.types import Posterior, Sites, Transitions

__all__ = ["MarkovGaussianProcess"]


class MarkovGaussianProcess(TorchDistribution):
    """Values ``f(times)`` of a Gaussian process with a Markov kernel.

    Args:
        kernel: its batch shape is that of the distribution (one process per component).
        times: strictly increasing coordinates ``(T,)``.
        mean: prior mean, a number or a tensor that broadcasts to ``(*batch, T)``.
        sites: Gaussian information on ``f`` with one scalar site per point
            (``precision (*batch, T, 1, 1)``, ``linear (*batch, T, 1)``).
        validate_args: check the arguments.

    Raises:
        DataError: times that are not finite, sorted and distinct.
        ShapeError: times of several dimensions, or sites that do not fit.

    Example:
        >>> from probkit.kernels import MaternKernel
        >>> process = MarkovGaussianProcess(MaternKernel(1.5, batch_shape=(3,)), torch.arange(5.0))
        >>> process.batch_shape, process.event_shape, process.log_prob(process.sample()).shape
        (torch.Size([3]), torch.Size([5]), torch.Size([3]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        kernel: MarkovKernel,
        times: Float[Tensor, "T"],
        *,
        mean: float | Tensor = 0.0,
        sites: Sites | None = None,
        validate_args: bool | None = None,
    ) -> None:
        times = times.to(kernel.dtype)
        _check_times(times)
        self.kernel, self.times, self.sites = kernel, times, sites
        # of the same moment as the transitions: the kernel may be trained on afterwards
        self.transitions = kernel.transitions(times)
        self._covariance = kernel.marginal_covariance(times)
        self.output_map = kernel.output_map()
        self._loc = torch.as_tensor(mean, dtype=times.dtype, device=times.device)
        shapes = [kernel.batch_shape, self._loc.shape[:-1]]
        if sites is not None:
            _check_sites(sites, times)
            shapes.append(sites.linear.shape[:-2])
        batch_shape = torch.broadcast_shapes(*shapes)
        self._loc = self._loc.expand(*batch_shape, times.shape[-1])
        super().__init__(batch_shape, times.shape[-1:], validate_args=validate_args)

    def expand(
        self, batch_shape: Any, _instance: MarkovGaussianProcess | None = None
    ) -> MarkovGaussianProcess:
        """The same process with more batch dimensions."""
        new = self._get_checked_instance(MarkovGaussianProcess, _instance)
        batch_shape = torch.Size(batch_shape)
        for name in ("kernel", "times", "sites", "transitions", "output_map", "_covariance"):
            setattr(new, name, getattr(self, name))
        new._loc = self._loc.expand(*batch_shape, *self.event_shape)
        super(MarkovGaussianProcess, new).__init__(
            batch_shape, self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Float[Tensor, "*batch T"]:
        if self.sites is None:
            return self._loc
        return self._loc + self._project_mean(self.posterior.mean)

    @property
    def variance(self) -> Float[Tensor, "*batch T"]:
        if self.sites is None:
            covariance = self._covariance
        else:
            covariance = self.posterior.covariance
        row = self.output_map.unsqueeze(-3)
        variance = (row @ covariance @ row.mT)[..., 0, 0]
        return variance.expand(*self.batch_shape, *self.event_shape)

    @lazy_property
    def posterior(self) -> Posterior:
        """State moments given the sites; the mean is that of ``z`` without the prior mean."""
        return smooth(*self._batched(), self._centred_sites())

    @lazy_property
    def log_normalizer(self) -> Float[Tensor, "*batch"]:
        """Log evidence of the sites, ``log E_prior[prod_i site_i(f_i)]``; zero without sites."""
        if self.sites is None:
            return self._loc.new_zeros(self.batch_shape)
        return log_normalizer(*self._batched(), self._centred_sites())

    def log_prob(self, value: Float[Tensor, "*sample T"]) -> Float[Tensor, "*sample"]:
        """Log density of the values of ``f``."""
        if self._validate_args:
            self._validate_sample(value)
        prior = log_density(self.transitions, self.output_map, value - self._loc)
        if self.sites is None:
            return prior
        return prior + self._log_sites(value) - self.log_normalizer

    def rsample(self, sample_shape: Any = ()) -> Float[Tensor, "*sample T"]:
        """Reparametrised draws of ``f``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        prior = self._project_mean(self._sample_states(shape[:-1]))
        if self.sites is None:
            return self._loc + prior
        precision, linear = self._centred_sites()[:2]
        noise = torch.randn(shape, dtype=prior.dtype, device=prior.device)
        precision = precision[..., 0, 0]
        pseudo = precision * prior + torch.sqrt(precision) * noise
        residual = linear[..., 0] - pseudo
        correction = self._smoothed_mean(precision.expand(shape), residual)
        return self._loc + prior + correction

    def condition(self, sites: Sites) -> MarkovGaussianProcess:
        """The posterior process given further information on ``f``; sites add."""
        if self.sites is not None:
            sites = Sites(*(old + new for old, new in zip(self.sites, sites, strict=True)))
        return MarkovGaussianProcess(
            self.kernel, self.times, mean=self._loc, sites=sites, validate_args=self._validate_args
        )

    def observe(
        self, y: Float[Tensor, "*batch T"], noise: float | Float[Tensor, "*#batch #T"]
    ) -> MarkovGaussianProcess:
        """The posterior process given ``y_i = f_i + N(0, noise_i)``, exact.

        In a guide, with ``y`` and ``noise`` as parameters, this is the best Gaussian approximation
        that a factorising likelihood allows (Opper & Archambeau, Neural Comput. 21, 2009), by 2 T
        numbers.

        Args:
            y: observations at ``times``; NaN marks a missing one.
            noise: variances, one for all or one each.

        Returns:
            The process, whose ``log_normalizer`` is ``log p(y)``.

        Raises:
            DataError: a variance that is not positive, or an infinite observation.

        Example:
            >>> from probkit.kernels import MaternKernel
            >>> process = MarkovGaussianProcess(MaternKernel(0.5), torch.tensor([0.0, 9.0]))
            >>> seen = process.observe(torch.tensor([2.0, torch.nan], dtype=torch.float64), 1.0)
            >>> seen.mean.round(decimals=3).tolist(), round(seen.log_normalizer.item(), 3)
            ([1.0, 0.0], -2.266)
        """
        return self.condition(observe(y.to(self.times.dtype), noise))

    def conditional(
        self, value: Float[Tensor, "*batch T"], new_times: Float[Tensor, "N"]
    ) -> tuple[Float[Tensor, "*batch N"], Float[Tensor, "*batch N"]]:
        """Mean and variance of ``f(new_times)`` given the values at ``times``, exact.

        The prior mean at new points is interpolated linearly unless it is constant. Sites do not
        matter once the values are known.

        Raises:
            DataError: new times that are not finite.
            NotPositiveDefiniteError: values that determine one another.
        """
        if not bool(torch.isfinite(new_times).all()):
            raise DataError(message("Coordinates must be finite", where="new_times"))
        new_times = new_times.to(self.times)
        merged, order = torch.unique(torch.cat([self.times, new_times]), return_inverse=True)
        known, wanted = order[: self.times.shape[-1]], order[self.times.shape[-1] :]
        centred = value - self._loc
        values = centred.new_zeros(*centred.shape[:-1], merged.shape[-1])
        values = values.index_copy(-1, known, centred)
        observed = torch.zeros_like(merged, dtype=torch.bool).index_fill(-1, known, True)
        result = condition_on_values(
            self.kernel.transitions(merged), self.output_map, values, observed
        )
        row = self.output_map.unsqueeze(-3)
        mean = self._project_mean(result.mean)[..., wanted]
        variance = (row @ result.covariance @ row.mT)[..., 0, 0][..., wanted]
        return mean + self._mean_at(new_times), variance.clamp(min=0)

    def _mean_at(self, new_times: Tensor) -> Tensor:
        if self.times.shape[-1] == 1:
            return self._loc.expand(*self._loc.shape[:-1], new_times.shape[-1])
        right = torch.searchsorted(self.times, new_times).clamp(1, self.times.shape[-1] - 1)
        left = right - 1
        gap = self.times[right] - self.times[left]
        share = ((new_times - self.times[left]) / gap).clamp(0, 1)
        return self._loc[..., left] * (1 - share) + self._loc[..., right] * share

    def _batched(self) -> tuple[Transitions, Tensor]:
        return self.transitions, self.output_map

    def _centred_sites(self) -> Sites:
        """Sites on ``f - mean``."""
        assert self.sites is not None
        precision = self.sites.precision
        mean = self._loc.unsqueeze(-1)
        moved = precision[..., 0] * mean
        scale = ((self.sites.linear - 0.5 * moved) * mean).sum((-2, -1)) + self.sites.log_scale
        linear = self.sites.linear - moved
        return Sites(precision.expand(*linear.shape, 1), linear, scale)

    def _log_sites(self, value: Tensor) -> Tensor:
        assert self.sites is not None
        precision, linear = self.sites.precision[..., 0, 0], self.sites.linear[..., 0]
        return (value * (linear - 0.5 * precision * value)).sum(-1) + self.sites.log_scale

    def _project_mean(self, states: Tensor) -> Tensor:
        return (states @ self.output_map.mT)[..., 0]

    def _sample_states(self, shape: torch.Size) -> Tensor:
        """Prior draws of the state by a prefix scan over the affine steps."""
        A, Q = self.transitions
        num_points, n = A.shape[-3], A.shape[-1]
        noise = torch.randn(*shape, num_points, n, 1, dtype=A.dtype, device=A.device)
        b = from_trailing(semidefinite_root(to_trailing(Q))) @ noise
        span = 1
        while span < num_points:
            later = A[..., span:, :, :]
            moved = b[..., span:, :, :] + later @ b[..., :-span, :, :]
            b = torch.cat([b[..., :span, :, :], moved], -3)
            A = torch.cat([A[..., :span, :, :], later @ A[..., :-span, :, :]], -3)
            span *= 2
        return b.squeeze(-1)

    def _smoothed_mean(self, precision: Tensor, linear: Tensor) -> Tensor:
        sites = Sites(
            precision[..., None, None], linear.unsqueeze(-1), linear.new_zeros(linear.shape[:-1])
        )
        return self._project_mean(smooth(*self._batched(), sites).mean)


@register_kl(MarkovGaussianProcess, MarkovGaussianProcess)
def _kl_between_processes(q: MarkovGaussianProcess, p: MarkovGaussianProcess) -> Tensor:
    """Closed form for processes that share the prior and differ by their sites."""
    # one kernel may have been trained between the two, so the transitions are compared
    same = all(
        one.shape == other.shape and bool(torch.equal(one, other))
        for one, other in zip(q.transitions, p.transitions, strict=True)
    )
    if not (same and torch.equal(q.times, p.times) and torch.equal(q._loc, p._loc)):
        raise ConfigurationError(
            message(
                "The divergence is known only between processes with one prior",
                where="kl_divergence(q, p)",
                expected="the same kernel, times and mean, with different sites",
                remedy="estimate it with q.rsample and the two log_prob",
            )
        )
    divergence = p.log_normalizer - q.log_normalizer
    for process, sign in ((q, 1.0), (p, -1.0)):
        if process.sites is not None:
            precision = process.sites.precision[..., 0, 0]
            expected = process._log_sites(q.mean) - 0.5 * (precision * q.variance).sum(-1)
            divergence = divergence + sign * expected
    return divergence


def _check_times(times: Tensor) -> None:
    if times.dim() != 1 or times.shape[0] == 0:
        raise ShapeError(
            message(
                "The coordinates must be a vector",
                where="times",
                got=tuple(times.shape),
                expected="(T,) with T >= 1",
            )
        )
    steps = steps_between(times)
    if bool((steps == 0).any()):
        index = int((steps == 0).nonzero()[0])
        raise DataError(
            message(
                "Coordinates must be distinct, or the values have no density",
                where="times",
                got=f"equal coordinates at positions {index} and {index + 1}",
                remedy="use torch.unique and index the values by its inverse",
            )
        )


def _check_sites(sites: Sites, times: Tensor) -> None:
    length = times.shape[-1]
    if sites.linear.shape[-2:] != (length, 1) or sites.precision.shape[-3:] != (length, 1, 1):
        raise ShapeError(
            message(
                "There must be one scalar site per coordinate",
                where="sites",
                got=f"precision {tuple(sites.precision.shape)}, linear {tuple(sites.linear.shape)}",
                expected=f"(..., {length}, 1, 1) and (..., {length}, 1)",
            )
        )
