"""The same equation solved by ``torchsde``: a general reference for the exact-step solver.

The state is (X, Y) with the noise written as ``dB_hat = -sum_k w_k g_k Y_k dt + (sum_k w_k) dW``,
one Brownian motion a coordinate. Schemes of torchsde take Euler-like steps of Y, so ``g h`` must be
below 1/2; its reversible Heun scheme diverges on decaying modes (a spread of 1e12 where it should
be 1), and is refused. Cost: about seven times that of ``probkit.sde.exact.simulate``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, DependencyError, message
from probkit.statespace.fractional import MarkovApproxFBM

__all__ = ["simulate_torchsde"]

_LIMIT = 0.5


def simulate_torchsde(
    drift: Callable[[Tensor, Tensor], Tensor],
    diffusion: Callable[[Tensor, Tensor], Tensor],
    process: MarkovApproxFBM,
    times: Float[Tensor, " N"],
    start: Float[Tensor, "S D"],
    *,
    dt: float,
    generator: torch.Generator,
    control: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    method: str = "euler",
    adjoint: bool = False,
) -> tuple[Float[Tensor, "S N D"], Float[Tensor, " S"]]:
    """Paths at the given times, and the path KL of the control.

    Args:
        drift, diffusion: ``b(t, x)`` and ``s(t, x)``, (S, D).
        control: ``u(t, x, y)``, (S, D); the integral of u^2 / 2 is one more state.
        dt: step of the scheme.
        method: of torchsde, for noise of general form: "euler", "heun", "midpoint".
        adjoint: solve the adjoint equation for gradients instead of going back through the steps.

    Raises:
        DependencyError: torchsde is not installed.
        ConfigurationError: reversible Heun, or steps too large for the fastest rate.
    """
    fastest = float(process.rates.max()) * dt
    if "reversible_heun" in method:
        raise ConfigurationError(
            message(
                "Reversible Heun diverges on the decaying modes of fractional noise",
                where="method",
                got=method,
                remedy="use probkit.sde.exact.simulate",
            )
        )
    if fastest > _LIMIT:
        raise ConfigurationError(
            message(
                "The step is too large for the fastest rate",
                where="dt",
                got=f"rate times step {fastest:.3g}",
                expected=f"<= {_LIMIT}",
                remedy="use probkit.sde.exact.simulate, which takes exact steps of any length",
            )
        )
    try:
        import torchsde
    except ImportError as error:
        raise DependencyError(
            message("torchsde is not installed", remedy='pip install "probkit[sde]"')
        ) from error
    count, dim = start.shape
    size = len(process.rates)
    model = _Augmented(drift, diffusion, process, control, dim)
    values, vectors = torch.linalg.eigh(process.initial_covariance)
    normal = torch.randn(count, dim, size + 1, generator=generator, dtype=start.dtype)
    y = normal[..., 1:] @ (vectors * values.clamp_min(0).sqrt()).mT.to(start)
    slope = normal[..., 0] * process.slope_variance.sqrt()
    state = torch.cat([start, y.flatten(1), slope, slope.new_zeros(count, 1)], 1)
    entropy = int(torch.randint(2**31, (), generator=generator))
    noise = torchsde.BrownianInterval(
        t0=float(times[0]),
        t1=float(times[-1]),
        size=(count, dim),
        dtype=start.dtype,
        entropy=entropy,
    )
    solve = torchsde.sdeint_adjoint if adjoint else torchsde.sdeint
    path = solve(model, state, times.double(), bm=noise, dt=dt, method=method)
    return path[..., :dim].movedim(0, 1), path[-1, :, -1]


class _Augmented(torch.nn.Module):
    """Drift and diffusion of (X, Y, slope, path KL), as torchsde takes them."""

    noise_type = "general"

    def __init__(
        self,
        drift: Callable[[Tensor, Tensor], Tensor],
        diffusion: Callable[[Tensor, Tensor], Tensor],
        process: MarkovApproxFBM,
        control: Callable[[Tensor, Tensor, Tensor], Tensor] | None,
        dim: int,
    ) -> None:
        super().__init__()
        self.sde_type = "ito"
        self.drift, self.diffusion, self.process, self.dim = drift, diffusion, process, dim
        self.control = control

    def f(self, t: Tensor, state: Tensor) -> Tensor:
        """Drift of the augmented state."""
        x, y, slope = self._parts(state)
        rates, weights = self.process.rates, self.process.weights
        moved, pulled = slope - (y * (weights * rates)).sum(-1), -rates * y
        kl = torch.zeros_like(x[:, :1])
        if self.control is not None:
            u = self.control(t, x, y)
            moved, pulled = moved + weights.sum(-1) * u, pulled + u[..., None]
            kl = 0.5 * u.square().sum(-1, True)
        drift = self.drift(t, x) + self.diffusion(t, x) * moved
        return torch.cat([drift, pulled.flatten(1), torch.zeros_like(slope), kl], 1)

    def g(self, t: Tensor, state: Tensor) -> Tensor:
        """Diffusion of the augmented state, (S, n, D)."""
        x, y, _ = self._parts(state)
        units = torch.eye(self.dim, dtype=state.dtype)
        own = torch.diag_embed(self.diffusion(t, x) * self.process.weights.sum(-1))
        modes = units.repeat_interleave(y.shape[-1], 0).expand(len(x), -1, -1)
        return torch.cat([own, modes, units.new_zeros(len(x), self.dim + 1, self.dim)], 1)

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = len(self.process.rates)
        x, y, slope, _ = state.split([self.dim, self.dim * size, self.dim, 1], 1)
        return x, y.reshape(len(state), self.dim, size), slope
