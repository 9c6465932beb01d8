"""How well a sparse tensor was recovered: error, support, and symbol errors through a channel."""

from __future__ import annotations

import torch
from torch import Tensor

from probkit.errors import ShapeError, message
from probkit.random import Seed, as_generator

__all__ = ["nmse", "support_recovery", "symbol_error_rate"]


def nmse(estimate: Tensor, truth: Tensor) -> float:
    """Normalised mean square error, norm(estimate - truth)^2 / norm(truth)^2.

    Example:
        >>> nmse(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]))
        1.0
    """
    _same(estimate, truth)
    difference = (estimate - truth).abs().square().sum()
    return float(difference / truth.abs().square().sum())


def support_recovery(estimate: Tensor, truth: Tensor, *, threshold: float = 1e-3) -> float:
    """Overlap of supports, intersection over union; entries below ``threshold`` * max count as 0.

    Example:
        >>> support_recovery(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]))
        0.5
    """
    _same(estimate, truth)
    size = estimate.abs()
    found, true = size > threshold * size.max(), truth != 0
    union = (found | true).sum()
    return float((found & true).sum() / union) if union else 1.0


def symbol_error_rate(
    channel: Tensor, estimate: Tensor, snr_db: float, *, num_symbols: int = 10_000, seed: Seed = 0
) -> float:
    """Errors of QPSK symbols sent with beams chosen by the estimate.

    The transmitter uses the leading right singular vector of the estimate, the receiver the left
    one, and divides by the gain the estimate promises. The noise is that of ``snr_db`` at the
    power received with the true channel and these beams.

    Args:
        channel: the true matrices, (P, rows, columns).
        estimate: of the same shape.
        snr_db: in decibels.
        num_symbols: for each of the P channels.
        seed: of symbols and noise; the same seed sends the same symbols through the same noise.

    Example:
        >>> h = torch.eye(2, dtype=torch.complex128).unsqueeze(0)
        >>> symbol_error_rate(h, h, 40.0)
        0.0
    """
    _same(estimate, channel)
    g = as_generator(seed)
    wrong = 0
    for true, found in zip(channel, estimate, strict=True):
        bits = torch.randint(0, 2, (2, num_symbols), generator=g) * 2 - 1
        symbols = torch.complex(bits[0].double(), bits[1].double()) / 2**0.5
        noise = torch.randn(num_symbols, generator=g, dtype=torch.complex128)
        left, gains, right = torch.linalg.svd(found.to(torch.complex128), full_matrices=False)
        u, v = left[:, 0], right[0].conj()
        effective = (u.conj() @ true.to(torch.complex128) @ v).item()
        received = effective * symbols
        level = received.abs().square().mean().sqrt() / 10 ** (snr_db / 20)
        # a null estimate promises no gain: its decisions are guesses, which must be counted
        decided = (received + level * noise) / gains[0].clamp(min=1e-300)
        right_bits = (decided.real.sign() == bits[0]) & (decided.imag.sign() == bits[1])
        wrong += int((~right_bits).sum())
    return wrong / (len(channel) * num_symbols)


def _same(estimate: Tensor, truth: Tensor) -> None:
    if estimate.shape != truth.shape:
        raise ShapeError(
            message(
                "Estimate and truth differ in shape",
                where="estimate",
                got=tuple(estimate.shape),
                expected=tuple(truth.shape),
            )
        )
