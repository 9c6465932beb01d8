"""The generative model of Kronecker-structured sparse recovery as a Pyro model.

    y_l = (A_1 x ... x A_I) x_l + e_l,   e_l ~ N(0, v I),   x_l ~ N(0, diag(g_1 x ... x g_I)),
    g_k = a^(1/I) r_k,   log a ~ N(log a_0, 5^2),   log v ~ N(log(0.1 mean abs(y)^2), 3^2),

with a_0 the variance of an atom if all of them carried the power of y, and relative variances

    prior "gaussian":   log r_k,i ~ N(-3, 4^2), the hierarchy of He & Joseph with a proper prior;
    prior "horseshoe":  r_k,i = s^2 / (1 + s^2),  s = t_k l_k,i,  l_k,i ~ C+(1),  t_k ~ C+(t_0),

the regularised horseshoe on slices: slices in use share the slab's variance a^(1/I), all others
are pulled to zero. The coefficients are integrated out
(:class:`probkit.distributions.KroneckerSparseNormal`), so that samplers see sum N_k numbers and not
prod N_k; :func:`draw_coefficients` brings them back. The structured solver
(:class:`probkit.sparse.KroneckerSBL`) maximises the same likelihood with flat priors.

Sources: He & Joseph, arXiv 2307.14719; Piironen & Vehtari, Electron. J. Stat. 11 (2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from probkit.distributions import KroneckerSparseNormal
from probkit.errors import ConfigurationError, ShapeError, message
from probkit.infer.protocols import PosteriorLike
from probkit.random import Seed, as_generator
from probkit.validation import check_choice

__all__ = ["PRIORS", "CoefficientDraws", "draw_coefficients", "kronecker_sparse_model"]

PRIORS = ("gaussian", "horseshoe")
Dictionaries = (
    Sequence[Inexact[Tensor, "M_k N_k"]]
    | Callable[[dict[str, Tensor]], Sequence[Inexact[Tensor, "*draw M_k N_k"]]]
)

_LOG_RELATIVE = (-3.0, 4.0)
_AMPLITUDE_SD, _NOISE_SD, _NOISE_SHARE = 5.0, 3.0, 0.1
_CHUNK_ELEMENTS = 20_000_000


def kronecker_sparse_model(
    y: Inexact[Tensor, "*measurements"],
    dictionaries: Sequence[Inexact[Tensor, "M_k N_k"]],
    *,
    prior: str = "horseshoe",
    noise: float | None = None,
    snapshots: bool = False,
    global_scale: float = 0.1,
) -> None:
    """Pyro model of one recovery problem.

    Sites: ``log_amplitude``, ``log_noise`` (unless given), and ``log_relative_k`` (N_k,) or
    ``local_k`` (N_k,) and ``global_k``; ``scale_k`` (N_k,) and ``noise`` are deterministic; ``y``.

    Args:
        y: (M_1, ..., M_I), or (L, M_1, ..., M_I) with snapshots.
        dictionaries: A_k, (M_k, N_k), real or complex.
        prior: "horseshoe" or "gaussian".
        noise: the noise variance if it is known.
        snapshots: whether the first dimension of y holds snapshots that share their support.
        global_scale: t_0 of the horseshoe: the smaller, the fewer slices are expected.

    Raises:
        ConfigurationError: an unknown prior, or a noise or scale that is not positive.
        ShapeError: measurements that do not fit the dictionaries.

    Example:
        >>> from probkit import fit
        >>> from probkit.infer import SVI
        >>> from probkit.sparse import simulate_recovery
        >>> p = simulate_recovery(num_atoms=5, num_measurements=(4, 6), num_nonzero=2)
        >>> data = {"y": p.y, "dictionaries": p.dictionaries, "prior": "gaussian"}
        >>> result = fit(kronecker_sparse_model, data, engine=SVI(steps=20, compile="off"))
        >>> draw_coefficients(result.posterior, p.y, p.dictionaries, num_samples=8).mean.shape
        torch.Size([5, 5])
    """
    _check(y, dictionaries, prior, noise, snapshots, global_scale)
    like = y.real
    power = y.abs().square().mean().clamp(min=torch.finfo(like.dtype).tiny)
    level = power.log() + math.log(math.prod(y.shape[int(snapshots) :]))
    for a in dictionaries:
        level = level - a.abs().square().sum().clamp(min=torch.finfo(like.dtype).tiny).log()
    amplitude = pyro.sample("log_amplitude", dist.Normal(level, _AMPLITUDE_SD))
    if noise is None:
        centre = power.log() + math.log(_NOISE_SHARE)
        variance = pyro.sample("log_noise", dist.Normal(centre, _NOISE_SD)).exp()
    else:
        variance = like.new_tensor(noise)
    pyro.deterministic("noise", variance)
    scales = []
    for k, a in enumerate(dictionaries):
        relative = _relative_of(_sites(k, a.shape[-1], prior, global_scale, like), k)
        scale = _scales(amplitude, relative, len(dictionaries))
        scales.append(pyro.deterministic(f"scale_{k}", scale, event_dim=1))
    law = KroneckerSparseNormal(
        dictionaries, scales, variance, num_snapshots=len(y) if snapshots else None
    )
    pyro.sample("y", law, obs=y)


@dataclass(frozen=True)
class CoefficientDraws:
    """Posterior of the coefficients with the uncertainty of their scales and of the noise.

    Attributes:
        mean: average of the exact means given each draw of the scales.
        sd: roots of the total variances; of complex coefficients, both parts together.
        draws: joint draws, one for each draw of the scales, ``(num_samples, *shape of the mean)``.
    """

    mean: Tensor
    sd: Tensor
    draws: Tensor

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Central credible interval of every coefficient (of both parts, if complex).

        Raises:
            ConfigurationError: a level that is no probability.
        """
        if not 0 < level < 1:
            raise ConfigurationError(
                message("A level is a probability", where="level", got=level, expected="in (0, 1)")
            )
        ends = self.sd.new_tensor([(1 - level) / 2, (1 + level) / 2])
        if self.draws.is_complex():
            both = torch.view_as_real(self.draws).quantile(ends, dim=0)
            found = torch.view_as_complex(both.contiguous())
        else:
            found = self.draws.quantile(ends, dim=0)
        return found[0], found[1]


def draw_coefficients(
    posterior: PosteriorLike,
    y: Inexact[Tensor, "*measurements"],
    dictionaries: Dictionaries,
    *,
    noise: float | None = None,
    snapshots: bool = False,
    num_samples: int = 500,
    seed: Seed = 0,
) -> CoefficientDraws:
    """x given y, averaged over draws of scales and noise from a fit of the model.

    Args:
        posterior: of the fit, ``result.posterior``, by any engine.
        y, noise, snapshots: as given to :func:`kronecker_sparse_model`.
        dictionaries: likewise; or, in a larger model whose dictionaries have unknowns of their
            own, a function from draws of all sites (num_samples, ...) to dictionaries, each
            (num_samples, M_k, N_k) or (M_k, N_k).
        num_samples: draws of scales and noise, and of coefficients.
        seed: of both.

    Raises:
        ConfigurationError: neither the posterior nor the argument has the noise.

    Example:
        >>> from probkit import fit
        >>> from probkit.infer import SVI
        >>> from probkit.sparse import kronecker_sparse_model, simulate_recovery
        >>> p = simulate_recovery(num_atoms=5, num_measurements=(4, 6), num_nonzero=2)
        >>> data = {"y": p.y, "dictionaries": p.dictionaries, "prior": "gaussian", "noise": 0.01}
        >>> result = fit(kronecker_sparse_model, data, engine=SVI(steps=20, compile="off"))
        >>> found = draw_coefficients(
        ...     result.posterior, p.y, p.dictionaries, noise=0.01, num_samples=8
        ... )
        >>> found.draws.shape
        torch.Size([8, 5, 5])
    """
    generator = as_generator(seed)
    sites = posterior.sample(num_samples, generator)
    if noise is None and "log_noise" not in sites:
        raise ConfigurationError(
            message(
                "The model was fitted with a known noise variance, which is needed here too",
                where="noise",
                remedy="give the same noise= as to the model",
            )
        )
    factors = list(dictionaries(sites) if callable(dictionaries) else dictionaries)
    amplitude = sites["log_amplitude"]
    scales = [_scales(amplitude, _relative_of(sites, k), len(factors)) for k in range(len(factors))]
    variance = torch.full_like(amplitude, noise) if noise is not None else sites["log_noise"].exp()
    atoms = math.prod(a.shape[-1] for a in factors) * (len(y) if snapshots else 1)
    chunk = max(_CHUNK_ELEMENTS // atoms, 1)
    means, variances, draws = [], [], []
    for part in torch.arange(len(amplitude), device=amplitude.device).split(chunk):
        law = KroneckerSparseNormal(
            [a[part] if a.dim() > 2 else a for a in factors],
            [g[part] for g in scales],
            variance[part],
            num_snapshots=len(y) if snapshots else None,
        )
        given = law.posterior(y)
        means.append(given.mean)
        variances.append(given.variance)
        draws.append(given.sample(1, generator)[0])
    centres = torch.cat(means)
    mean = centres.mean(0)
    spread = (centres - mean).abs().square().mean(0)
    return CoefficientDraws(mean, (torch.cat(variances).mean(0) + spread).sqrt(), torch.cat(draws))


def _sites(k: int, size: int, prior: str, global_scale: float, like: Tensor) -> dict[str, Tensor]:
    """Draw what decides the relative variances of one factor's slices."""
    if prior == "gaussian":
        centre, width = like.new_full((size,), _LOG_RELATIVE[0]), _LOG_RELATIVE[1]
        name = f"log_relative_{k}"
        return {name: pyro.sample(name, dist.Normal(centre, width).to_event(1))}
    together, apart = f"global_{k}", f"local_{k}"
    return {
        together: pyro.sample(together, dist.HalfCauchy(like.new_tensor(global_scale))),
        apart: pyro.sample(apart, dist.HalfCauchy(like.new_ones(size)).to_event(1)),
    }


def _relative_of(sites: dict[str, Tensor], k: int) -> Float[Tensor, "*draw N_k"]:
    """Relative variances of the slices, of one draw or many."""
    if f"log_relative_{k}" in sites:
        return sites[f"log_relative_{k}"].exp()
    # 1 - 1 / (1 + s^2) in a form that neither overflows nor cancels
    log = sites[f"global_{k}"].log().unsqueeze(-1) + sites[f"local_{k}"].log()
    return torch.sigmoid(2 * log)


def _scales(
    amplitude: Tensor, relative: Float[Tensor, "*draw N_k"], num_factors: int
) -> Float[Tensor, "*draw N_k"]:
    return (amplitude / num_factors).exp().unsqueeze(-1) * relative


def _check(
    y: Tensor,
    dictionaries: Sequence[Tensor],
    prior: str,
    noise: float | None,
    snapshots: bool,
    global_scale: float,
) -> None:
    check_choice("prior", "prior", prior, PRIORS)
    for name, value in (("noise", noise), ("global_scale", global_scale)):
        if value is not None and not value > 0:
            raise ConfigurationError(
                message("Must be positive", where=name, got=value, expected="> 0")
            )
    rows = tuple(a.shape[-2] for a in dictionaries if a.dim() == 2)
    if len(rows) != len(dictionaries) or tuple(y.shape[int(snapshots) :]) != rows:
        raise ShapeError(
            message(
                "The measurements do not fit the dictionaries",
                where="y, dictionaries",
                got=f"{tuple(y.shape)}, {[tuple(a.shape) for a in dictionaries]}",
                expected="(M_1, ..., M_I) with (M_k, N_k) each; first the snapshots, if any",
                remedy="reshape y; snapshots=True if its first dimension are snapshots",
            )
        )
