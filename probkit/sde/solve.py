"""One interface to both solvers: exact steps of the noise, or any scheme of ``torchsde``."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.random import Seed, as_generator
from probkit.sde.exact import simulate
from probkit.sde.torchsde_backend import simulate_torchsde
from probkit.statespace.fractional import MarkovApproxFBM

__all__ = ["solve_sde"]


def solve_sde(
    drift: Callable[[Tensor, Tensor], Tensor],
    diffusion: Callable[[Tensor, Tensor], Tensor],
    process: MarkovApproxFBM,
    times: Float[Tensor, " N"],
    start: Float[Tensor, "S D"],
    *,
    control: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    backend: str = "exact",
    dt: float | None = None,
    method: str | None = None,
    segment: int | None = None,
    seed: Seed = 0,
) -> tuple[Float[Tensor, "S N D"], Float[Tensor, " S"]]:
    """Paths of ``dX = b dt + s dB_hat`` at increasing times, and the path KL of a control.

    Args:
        drift, diffusion: ``b(t, x)`` and ``s(t, x)``, (S, D).
        process: the driving noise.
        times: the first is that of ``start``. The exact solver steps from one to the next.
        start: X at the first time.
        control: ``u(t, x, y)``, (S, D), added to the white noise behind the modes.
        backend: "exact", or "torchsde" as a general reference.
        dt: step of torchsde; the smallest gap of ``times`` if None.
        method: "ito" or "heun" (Stratonovich) for exact steps; a scheme of torchsde.
        segment: steps between two checkpoints of the backward pass of exact steps.
        seed: of all randomness.

    Raises:
        ConfigurationError: an unknown backend or method, times that do not increase, or a scheme
            that is known to fail on decaying modes.
        DependencyError: torchsde is not installed.

    Example:
        >>> import torch
        >>> process = MarkovApproxFBM(0.3, num_steps=100, dt=0.01)
        >>> times = torch.linspace(0, 1, 101, dtype=torch.float64)
        >>> start = torch.zeros(5, 1, dtype=torch.float64)
        >>> path, kl = solve_sde(
        ...     lambda t, x: -x, lambda t, x: torch.ones_like(x), process, times, start
        ... )
        >>> path.shape
        torch.Size([5, 101, 1])
    """
    gaps = times.diff()
    if not bool((gaps > 0).all()) or len(times) < 2:
        raise ConfigurationError(
            message("Times must increase", where="times", got=times.tolist()[:5], expected="two +")
        )
    generator = as_generator(seed)
    terms = (drift, diffusion, process, times, start)
    if backend == "exact":
        name = "ito" if method is None else method
        if name not in ("ito", "heun"):
            raise ConfigurationError(
                message(
                    "The exact solver has no such method",
                    where="method",
                    got=repr(method),
                    expected='"ito" or "heun"',
                    remedy='for schemes of torchsde say backend="torchsde"',
                )
            )
        heun = name == "heun"
        return simulate(*terms, generator=generator, control=control, heun=heun, segment=segment)
    if backend != "torchsde":
        raise ConfigurationError(
            message(
                "There is no such backend",
                where="backend",
                got=repr(backend),
                expected='"exact" or "torchsde"',
            )
        )
    step = float(gaps.min()) if dt is None else dt
    scheme = "euler" if method is None else method
    return simulate_torchsde(*terms, dt=step, generator=generator, control=control, method=scheme)
