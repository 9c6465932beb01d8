"""Dense transcriptions of the paper's iterations, as its authors' code computes them."""

from __future__ import annotations

import time
from functools import reduce

import torch
from scipy.optimize import nnls
from torch import Tensor

from probkit.sparse import RecoveryProblem

_DROP = {"am": 1e-2, "ksbl": 1e-2, "svd": 1e-3, "classic": 1e-3, "paper_pattern_coupled": 1e-2}
_COUPLING = 0.8


def kron(parts: list[Tensor]) -> Tensor:
    return reduce(torch.kron, parts)


def conditioning(
    factors: list[Tensor], scales: list[Tensor], noise: float, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (N, L), variances (N) and log evidence by dense algebra; y is (L, M_1, ..., M_I)."""
    a, s = kron(factors), kron(scales)
    scaled = a * s.to(a.dtype)
    c = noise * torch.eye(len(a), dtype=a.dtype) + scaled @ a.mH
    columns = y.flatten(1).mT
    gain = torch.linalg.solve(c, scaled).mH
    variance = s - (gain @ scaled).diagonal().real
    half = 1.0 if a.is_complex() else 0.5
    quadratic = (columns.conj() * torch.linalg.solve(c, columns)).sum().real
    constant = len(a) * torch.log(torch.tensor(torch.pi / half, dtype=s.dtype))
    logdet = torch.linalg.slogdet(c)[1] + constant
    return gain @ columns, variance, -half * (columns.shape[1] * logdet + quadratic)


def reference(
    problem: RecoveryProblem, method: str, *, max_steps: int = 150, max_seconds: float = 1e9
) -> tuple[Tensor, float]:
    """x by one of the paper's methods with the authors' constants, and its CPU seconds.

    The covariance N x N is formed, as in their code, on the slices that are left. "classic" has the
    whole dictionary as its only factor.
    """
    start = time.process_time()
    y = problem.y.flatten()
    dictionaries = list(problem.dictionaries)
    if method == "classic":
        dictionaries = [kron(dictionaries)]
    g = [torch.ones(a.shape[1], dtype=torch.float64) for a in dictionaries]
    mean, kept = y.new_zeros(0), []
    for _ in range(max_steps):
        kept = [(v >= _DROP[method] * v.max()) & (v > 0) for v in g]
        factors = [a[:, k] for a, k in zip(dictionaries, kept, strict=True)]
        small = [v[k] for v, k in zip(g, kept, strict=True)]
        a, s = kron(factors), kron(small)
        scaled = a * s
        c = problem.noise * torch.eye(len(a), dtype=a.dtype) + scaled @ a.mT
        gain = torch.linalg.solve(c, scaled).mT
        covariance = s.diag() - gain @ scaled
        mean = gain @ y
        total = (mean**2 + covariance.diagonal()).reshape([len(v) for v in small])
        small = _update(total, small, method, kept)
        change = (kron(small) - s).norm() / s.norm()
        g = [v.new_zeros(len(k)).masked_scatter(k, v) for v, k in zip(small, kept, strict=True)]
        if change <= 1e-4 or time.process_time() - start > max_seconds:
            break
    a, s = kron(dictionaries), kron(g)
    c = problem.noise * torch.eye(len(a), dtype=a.dtype) + (a * s) @ a.mT
    x = s * (a.mT @ torch.linalg.solve(c, y))
    return x.reshape(problem.x.shape), time.process_time() - start


def _update(total: Tensor, scales: list[Tensor], method: str, kept: list[Tensor]) -> list[Tensor]:
    if method == "classic":
        return [total]
    if method == "svd":
        found, rest = [], total
        while rest.dim() > 1:
            u, _, _ = torch.linalg.svd(rest.flatten(1), full_matrices=False)
            found.append(u[:, 0].abs())
            rest = torch.tensordot(found[-1], rest, 1)
        return [*found, rest.abs()]
    if method == "paper_pattern_coupled":
        return _coupled(total, scales, kept)
    new = list(scales)
    for _ in range(2000 if method == "am" else 1):
        old = kron(new)
        for k in range(len(new)):
            new[k] = _target(total, new, k)
        if (kron(new) - old).norm() <= 1e-5:
            break
    return new


def _target(total: Tensor, scales: list[Tensor], k: int) -> Tensor:
    value = total
    for j in reversed(range(len(scales))):
        if j != k:
            value = torch.tensordot(value, 1 / scales[j], ([j], [0]))
    return value * len(scales[k]) / total.numel()


def _coupled(total: Tensor, scales: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
    new = list(scales)
    for _ in range(9):
        old = kron(new)
        for k in range(len(new)):
            new[k] = _target(total, new, k)
            if k % 2 == 0:
                size = len(kept[k])
                beside = torch.ones(size - 1, dtype=total.dtype).diag(1)
                c = torch.eye(size, dtype=total.dtype) + _COUPLING * (beside + beside.mT)
                c = c[kept[k]][:, kept[k]]
                weights, _ = nnls(c.numpy(), new[k].numpy())
                new[k] = 1e-5 + c @ torch.as_tensor(weights)
        for k in range(len(new) - 1):  # norms one; the floor makes the result depend on it
            new[-1] = new[-1] * new[k].norm()
            new[k] = new[k] / new[k].norm()
        if (kron(new) - old).norm() / old.norm() <= 1e-4:
            break
    return new
