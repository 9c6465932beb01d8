"""The functional Tucker model as a Pyro program: what every inference of this package approximates.

    u^k_r ~ GP(0, kappa_k)          R_k functions of coordinate k, on the sorted distinct values
    W     ~ N(0, sd^2 I)            core (R_1, ..., R_K); CP: one weight for each component
    b     ~ N(0, 10^2)              intercept
    f_n   = b + sum_g W_g prod_k u^k_{g_k}(x_nk)
    y_n   ~ likelihood(f_n, tau)

Source: Fang et al., ICLR 2024, arXiv 2311.04829. The scale of f is in the core, so kernels should
have variance one. Coordinates and targets are the internal ones: ``FunctionalTucker`` maps each
coordinate to [0, 1] and standardises real targets. Its coordinate updates use this joint density,
with ``core_sd`` and the kernels' parameters learned and the degrees of freedom of the Student-t and
the dispersion of the negative binomial as points rather than unknowns.

Cost of one run: ``O(sum_k R_k D_k s^3 + N prod_k R_k)``; with ``subsample_size`` (or minibatches
given by the engine) N is the size of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from probkit.distributions import MarkovGaussianProcess
from probkit.errors import ShapeError, message
from probkit.kernels import MarkovKernel
from probkit.tensor.likelihoods import LIKELIHOOD_NAMES
from probkit.validation import check_choice

__all__ = ["functional_tucker_model", "tucker_function"]

_INTERCEPT_SD = 10.0


def functional_tucker_model(
    index: Int64[Tensor, "N K"],
    y: Float[Tensor, " N"] | None,
    *,
    grids: Sequence[Float[Tensor, " D_k"]],
    kernels: Sequence[MarkovKernel],
    structure: str = "tucker",
    likelihood: str = "gaussian",
    core_sd: float | Tensor = 1.0,
    noise_prior: tuple[float, float] = (1e-3, 1e-3),
    learn_kernels: bool = False,
    subsample_size: int | None = None,
) -> Float[Tensor, " N"]:
    """Pyro model of N entries; sites ``factor_k`` (R_k, D_k), ``core``, ``intercept``, ``tau``.

    Args:
        index: row of each entry in the grid of each mode.
        y: targets; None to draw them.
        grids: sorted distinct coordinates of each mode.
        kernels: one for each mode, with batch shape (R_k,): it decides the mode's rank.
        structure: "tucker" or "cp".
        likelihood: "gaussian", "student_t" (adds the site ``df``), "poisson" (log link),
            "bernoulli" (logit link), "negative_binomial" (log link; adds ``dispersion``).
        core_sd: prior standard deviation of the core, broadcast to its shape.
        noise_prior: shape and rate of the Gamma prior of the noise precision ``tau``.
        learn_kernels: register the kernels' parameters with Pyro, so that SVI maximises the ELBO
            over them too.
        subsample_size: entries of a random minibatch; None for all.

    Returns:
        f at the entries (of the minibatch).

    Raises:
        ConfigurationError, ShapeError: settings that do not fit together.

    Example:
        >>> from probkit.kernels import kernel_from_name
        >>> grids = [torch.linspace(0, 1, d, dtype=torch.float64) for d in (5, 7)]
        >>> kernels = [kernel_from_name("matern32", num_components=2) for _ in grids]
        >>> index = torch.cartesian_prod(torch.arange(5), torch.arange(7))
        >>> model = pyro.condition(functional_tucker_model, {"tau": torch.tensor(4.0)})
        >>> model(index, None, grids=grids, kernels=kernels).shape
        torch.Size([35])
    """
    _check(index, grids, kernels, structure, likelihood)
    factors = []
    for k, (grid, kernel) in enumerate(zip(grids, kernels, strict=True)):
        if learn_kernels:
            for name, parameter in kernel.named_parameters():
                pyro.param(f"kernel_{k}.{name}", parameter)
        with pyro.plate(f"components_{k}", kernel.batch_shape[0], dim=-1):
            factors.append(pyro.sample(f"factor_{k}", MarkovGaussianProcess(kernel, grid)))

    like = factors[0]
    shape = core_shape([kernel.batch_shape[0] for kernel in kernels], structure)
    sd = torch.as_tensor(core_sd, dtype=like.dtype, device=like.device).expand(shape)
    core = pyro.sample("core", dist.Normal(torch.zeros_like(sd), sd).to_event(len(shape)))
    intercept = pyro.sample("intercept", dist.Normal(like.new_zeros(()), _INTERCEPT_SD))
    noise = _noise_sites(likelihood, noise_prior, like)

    with pyro.plate("entries", len(index), subsample_size=subsample_size, dim=-1) as rows:
        f = tucker_function(factors, core, intercept, index[rows], structure=structure)
        observed = None if y is None else y[rows]
        pyro.sample("y", _observation(likelihood, f, noise), obs=observed)
    return f


def tucker_function(
    factors: Sequence[Float[Tensor, "*batch R_k D_k"]],
    core: Tensor,
    intercept: Tensor,
    index: Int64[Tensor, "Q K"],
    *,
    structure: str = "tucker",
) -> Float[Tensor, "*batch Q"]:
    """f at rows of the grids, for one draw or a batch of them.

    Batches are those of draws, (S, R_k, D_k), (S, *core) and (S,), or of vectorised particles,
    where core and intercept keep the plate's dimension: (S, 1, *core) and (S, 1).

    Example:
        >>> factors = [torch.ones(4, 2, 5), torch.ones(4, 3, 6)]
        >>> index = torch.tensor([[0, 5], [4, 2]])
        >>> tucker_function(factors, torch.ones(4, 2, 3), torch.zeros(4), index)[0]
        tensor([6., 6.])
    """
    event = len(factors) if structure == "tucker" else 1
    weights = core.flatten(-event)
    batch = factors[0].dim() - 2
    if batch and weights.dim() > batch + 1:
        weights = weights.squeeze(-2)
    if batch and intercept.dim() == batch:
        intercept = intercept.unsqueeze(-1)
    product = factors[0][..., index[:, 0]]
    for k, factor in enumerate(factors[1:], start=1):
        values = factor[..., index[:, k]]
        if structure == "cp":
            product = product * values
        else:
            product = (product.unsqueeze(-2) * values.unsqueeze(-3)).flatten(-3, -2)
    return torch.einsum("...g,...gn->...n", weights, product) + intercept


def core_shape(ranks: Sequence[int], structure: str) -> tuple[int, ...]:
    """Shape of the site ``core``: the ranks, or (R,) for CP."""
    return tuple(ranks) if structure == "tucker" else (ranks[0],)


def _noise_sites(
    likelihood: str, noise_prior: tuple[float, float], like: Tensor
) -> dict[str, Tensor]:
    """Unknowns of the likelihood; df has the prior of Juarez & Steel (2010)."""
    sites: dict[str, Tensor] = {}
    if likelihood in ("gaussian", "student_t"):
        a, b = (like.new_tensor(value) for value in noise_prior)
        sites["tau"] = pyro.sample("tau", dist.Gamma(a, b))
    if likelihood == "student_t":
        prior = dist.Gamma(like.new_tensor(2.0), like.new_tensor(0.1))
        sites["df"] = pyro.sample("df", prior)
    if likelihood == "negative_binomial":
        # wide around 10: from nearly geometric counts to nearly Poisson ones
        prior = dist.LogNormal(like.new_tensor(10.0).log(), like.new_tensor(2.0))
        sites["dispersion"] = pyro.sample("dispersion", prior)
    return sites


def _observation(likelihood: str, f: Tensor, noise: dict[str, Tensor]) -> dist.Distribution:
    if likelihood == "gaussian":
        return dist.Normal(f, noise["tau"].rsqrt())
    if likelihood == "student_t":
        return dist.StudentT(noise["df"], f, noise["tau"].rsqrt())
    if likelihood == "poisson":
        return dist.Poisson(f.exp())
    if likelihood == "bernoulli":
        return dist.Bernoulli(logits=f)
    size = noise["dispersion"]
    return dist.NegativeBinomial(total_count=size, logits=f - size.log())


def _check(
    index: Tensor,
    grids: Sequence[Tensor],
    kernels: Sequence[MarkovKernel],
    structure: str,
    likelihood: str,
) -> None:
    choices: dict[str, tuple[str, tuple[str, ...]]] = {"structure": (structure, ("tucker", "cp"))}
    choices["likelihood"] = (likelihood, LIKELIHOOD_NAMES)
    for name, (got, allowed) in choices.items():
        check_choice("setting", name, got, allowed)
    if index.dim() != 2 or not index.shape[1] == len(grids) == len(kernels):
        raise ShapeError(
            message(
                "There must be one grid, one kernel and one column of rows for each mode",
                where="index, grids, kernels",
                got=f"{tuple(index.shape)}, {len(grids)} grids, {len(kernels)} kernels",
                expected="(N, K), K grids, K kernels",
            )
        )
    shapes = [tuple(kernel.batch_shape) for kernel in kernels]
    if any(len(shape) != 1 for shape in shapes) or (structure == "cp" and len(set(shapes)) > 1):
        raise ShapeError(
            message(
                "A kernel's batch shape is the rank of its mode; CP has one rank for all",
                where="kernels",
                got=shapes,
                expected="(R_k,) each",
                remedy="build them with kernel_from_name(..., num_components=R_k)",
            )
        )
