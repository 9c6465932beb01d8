"""Whether Hamiltonian trajectories explored the posterior: divergences and energies.

E-BFMI = sum (E_n - E_{n-1})^2 / sum (E_n - mean E)^2, over all chains (Betancourt,
arXiv:1604.00695): small where momenta cannot move the energy enough.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from probkit.infer.sampling_diagnostics import mixing_status
from probkit.infer.status import Status

__all__ = ["energy_diagnostics", "sampler_status", "stuck_chains"]

_DIVERGENT = 1000.0
_E_BFMI_LIMIT = 0.3
_DIVERGENT_SHARE = 1e-3


def energy_diagnostics(
    energies: Float[Tensor, "chain draw"], errors: Float[Tensor, "chain draw"]
) -> dict[str, Any]:
    """``divergences`` (by chain), ``acceptance`` (by chain), ``e_bfmi`` and ``warnings``.

    Args:
        energies: at the start of each trajectory.
        errors: growth of the energy along it; above 1000 or not finite is a divergence.

    Example:
        >>> import torch
        >>> found = energy_diagnostics(torch.tensor([[1.0, 3.0, 1.0]]), torch.zeros(1, 3))
        >>> found["divergences"], found["e_bfmi"]
        ([0], 3.0)
    """
    divergent = ~(errors <= _DIVERGENT)
    spread = (energies - energies.mean(1, keepdim=True)).square().sum()
    e_bfmi = float(energies.diff(dim=1).square().sum() / spread)
    count, total = int(divergent.sum()), divergent.numel()
    found: dict[str, Any] = {
        "divergences": [int(n) for n in divergent.sum(1)],
        "acceptance": [float(a) for a in (-errors).exp().clamp(max=1).mean(1)],
        "e_bfmi": e_bfmi,
    }
    warnings = []
    if count:
        warnings.append(
            f"{count} of {total} transitions diverged: part of the posterior may not have been "
            "reached. Reparametrise the model, raise target_accept, or use NUTS."
        )
    if not e_bfmi >= _E_BFMI_LIMIT:
        warnings.append(
            f"E-BFMI {e_bfmi:.2f}: the scales of the posterior differ from place to place. "
            "Reparametrise the model (non-centred), or use NUTS."
        )
    return {**found, **({"warnings": warnings} if warnings else {})}


def stuck_chains(
    draws: Float[Tensor, "chain draw size"], restarts: Int64[Tensor, " chain"]
) -> dict[str, Any]:
    """``restarts`` (by chain), ``never_moved`` (numbers of chains) and ``warnings``.

    Args:
        draws: unconstrained; chains are numbered from 0.
        restarts: how often each chain was moved to the place of another one in the warm-up.

    Example:
        >>> import torch
        >>> draws = torch.stack([torch.zeros(3, 1), torch.arange(3.0)[:, None]])
        >>> stuck_chains(draws, torch.tensor([0, 1]))["never_moved"]
        [0]
    """
    still = (draws == draws[:, :1]).all(2).all(1)
    never = still.nonzero()[:, 0].tolist() if draws.shape[1] > 1 else []
    warnings = [f"Chain {chain} never moved: all its draws are the same." for chain in never]
    moved = (restarts > 0).nonzero()[:, 0].tolist()
    if moved:
        numbers = ", ".join(map(str, moved))
        warnings.append(
            f"Restarted in the warm-up from the place of another chain, because no move of theirs "
            f"was accepted: {numbers} (of {len(restarts)} chains, counted from 0). A narrow part "
            "of the posterior there would be missed."
        )
    return {"restarts": restarts.tolist(), "never_moved": never, "warnings": warnings}


def sampler_status(diagnostics: dict[str, Any]) -> tuple[Status, str]:
    """NOT_MIXED, with what speaks against the draws, or CONVERGED.

    Against them speak an r_hat above 1.05, more than one divergence in a thousand transitions, and
    an E-BFMI below 0.3, and a chain that never moved.
    """
    faults = []
    if mixing_status(diagnostics) is Status.NOT_MIXED:
        faults.append(f"largest r_hat {diagnostics['max_r_hat']:.3f}")
    divergences = sum(diagnostics["divergences"])
    total = diagnostics["num_draws"] * len(diagnostics["divergences"])
    if divergences > _DIVERGENT_SHARE * total:
        faults.append(f"{divergences} divergent transitions of {total}")
    if not diagnostics["e_bfmi"] >= _E_BFMI_LIMIT:
        faults.append(f"E-BFMI {diagnostics['e_bfmi']:.2f}")
    faults += [f"chain {chain} never moved" for chain in diagnostics.get("never_moved", [])]
    return (Status.NOT_MIXED if faults else Status.CONVERGED), "; ".join(faults)
