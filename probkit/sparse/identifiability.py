"""Whether measurements can determine a support of this size: what a recovery says of itself.

Any M_k columns of a generic (M_k, N_k) dictionary are independent. Of noiseless data, s_k slices of
it are then the only ones of their number if ``2 s_k <= M_k``. Up to ``s_k < M_k`` this needs the
other dimensions of y as independent snapshots, which noise weakens; and any M_k columns span all
that this dimension of y can be, so that from ``s_k = M_k`` on nothing tells which columns they are.

Source: Donoho & Elad, PNAS 100 (2003), Theorem 1; Chen & Huo, IEEE TSP 54 (2006), for snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["support_findings"]


def support_findings(
    support: Tensor, rows: Sequence[int], columns: Sequence[int]
) -> dict[str, Any]:
    """``faults`` and ``doubts`` for a result's diagnostics; empty where the support is small.

    Args:
        support: kept slices of each dictionary, (B, I).
        rows: M_k of each dictionary.
        columns: N_k of each dictionary; one with ``N_k <= M_k`` determines any support.

    Example:
        >>> list(support_findings(torch.tensor([[4, 2]]), (4, 6), (12, 12)))
        ['faults']
        >>> support_findings(torch.tensor([[2, 2]]), (4, 6), (12, 12))
        {}
    """
    limits = torch.tensor(rows)
    short = limits < torch.tensor(columns)
    support = support.cpu()
    full, large = (support >= limits) & short, (2 * support > limits) & short
    for key, found, meaning in (
        ("faults", full, "any so many columns fit as well"),
        ("doubts", large, "more than half: with noise, another support may fit as well"),
    ):
        if bool(found.any()):
            problem, k = torch.nonzero(found)[0].tolist()
            where = f"dictionary {k}" + f" of problem {problem}" * (len(support) > 1)
            count = int(found.any(1).sum())
            others = f" ({count} problems)" if count > 1 else ""
            kept = f"{int(support[problem, k])} kept slices for {rows[k]} rows of {where}{others}"
            return {key: [f"{kept}: {meaning}"]}
    return {}
