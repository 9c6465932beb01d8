"""Small Matérn state spaces and the dense Gaussian process they must agree with."""

import math

import torch

from probkit.statespace.types import Sites, Transitions


def feedback(nu, lengthscale):
    """Companion matrix F of the Matérn SDE and its stationary covariance (unit variance)."""
    lam = math.sqrt(2 * nu) / lengthscale
    if nu == 0.5:
        return torch.tensor([[-lam]]).double(), torch.eye(1).double()
    if nu == 1.5:
        F = torch.tensor([[0.0, 1.0], [-(lam**2), -2 * lam]], dtype=torch.float64)
        return F, torch.diag(torch.tensor([1.0, lam**2], dtype=torch.float64))
    k = lam**2 / 3
    F = torch.tensor(
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-(lam**3), -3 * lam**2, -3 * lam]], dtype=torch.float64
    )
    P = torch.tensor([[1.0, 0.0, -k], [0.0, k, 0.0], [-k, 0.0, lam**4]], dtype=torch.float64)
    return F, P


class Matern:
    """A scalar Matérn process: ``.transitions(times)``, ``.H`` and dense ``.covariance``."""

    def __init__(self, nu, lengthscale=1.0, variance=1.0):
        self.F, P = feedback(nu, lengthscale)
        self.P = variance * P
        self.state_dimension = len(P)
        self.H = torch.zeros(1, len(P), dtype=torch.float64)
        self.H[0, 0] = 1.0

    def transitions(self, times):
        step = torch.diff(times, dim=-1)
        A = torch.linalg.matrix_exp(self.F * step[..., None, None])
        Q = self._noise(step)
        first = self.P.expand(*times.shape[:-1], 1, *self.P.shape)
        return Transitions(torch.cat([0 * first, A], -3), torch.cat([first, Q], -3))

    def _noise(self, step):
        """Van Loan: exact without the cancellation of ``P - A P A'``."""
        n = len(self.P)
        diffusion = -(self.F @ self.P + self.P @ self.F.T)
        block = torch.zeros(2 * n, 2 * n, dtype=torch.float64)
        block[:n, :n], block[:n, n:], block[n:, n:] = -self.F, diffusion, self.F.T
        power = torch.linalg.matrix_exp(block * step[..., None, None])
        Q = power[..., n:, n:].mT @ power[..., :n, n:]
        return 0.5 * (Q + Q.mT)

    def covariance(self, first, second):
        """State covariance ``(n1, s, n2, s)`` of the process at two sets of times."""
        lag = first[:, None] - second[None, :]
        power = torch.linalg.matrix_exp(self.F * lag.abs()[..., None, None])
        forward = power @ self.P
        return torch.where((lag >= 0)[..., None, None], forward, forward.mT).transpose(1, 2)


def joint_covariance(kernels, times):
    """Prior covariance of the stacked states at all times, ``(T, n, T, n)``."""
    T, n = len(times), sum(k.state_dimension for k in kernels)
    full = torch.zeros(T, n, T, n, dtype=torch.float64)
    at = 0
    for kernel in kernels:
        s = kernel.state_dimension
        full[:, at : at + s, :, at : at + s] = kernel.covariance(times, times)
        at += s
    return full


def dense_posterior(prior, H, sites):
    """Mean ``(T, n)``, covariance ``(T, n, T, n)`` and log normaliser by dense algebra."""
    T, n = prior.shape[:2]
    big_h = torch.block_diag(*[H] * T)
    root = torch.block_diag(*torch.linalg.cholesky(sites.precision))
    P = prior.reshape(T * n, T * n)
    W = big_h.T @ root
    F = torch.eye(W.shape[1], dtype=torch.float64) + W.T @ P @ W
    factor = torch.linalg.cholesky(F)
    half = torch.linalg.solve_triangular(factor, W.T @ P, upper=False)
    covariance = P - half.T @ half
    linear = big_h.T @ sites.linear.reshape(-1)
    mean = covariance @ linear
    value = sites.log_scale + 0.5 * linear @ mean - factor.diagonal().log().sum()
    return mean.reshape(T, n), covariance.reshape(T, n, T, n), value


def random_sites(T, m, generator, scale=1.0, missing=0):
    w = torch.randn(T, m, m + 2, generator=generator, dtype=torch.float64)
    precision = scale * w @ w.mT
    linear = scale * torch.randn(T, m, generator=generator, dtype=torch.float64)
    if missing:
        index = torch.randperm(T, generator=generator)[:missing]
        precision[index], linear[index] = 0.0, 0.0
    return Sites(precision, linear, torch.tensor(0.25, dtype=torch.float64))
