"""A physics-informed network, plain or with random Fourier features, trained by Adam.

    loss = mean (F[u] - f)^2 / mean f^2 + 100 mean (u - g)^2 on the faces

with u a tanh network of inputs scaled to [-1, 1]. Fourier features are cos and sin of random
frequencies, half of them slow and half up to the highest frequency of the problem, which the
method must be told. First and second derivatives are carried forward through the layers, which
costs a third of nested differentiation. Large grids are visited by random batches.

Sources: Raissi, Perdikaris & Karniadakis, J. Comput. Phys. 378 (2019); Wang, Wang & Perdikaris,
Comput. Methods Appl. Mech. Eng. 384 (2021) for the features.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from benchmarks.frame import cpu_seconds
from probkit.pde import Box, Problem

__all__ = ["PinnBaseline"]

_WIDTH, _DEPTH, _BATCH = 100, 3, 2000
_FEATURES = 100
_FACE_WEIGHT = 100.0
_RATE = 1e-3
_Jet = tuple[Tensor, list[Tensor], list[Tensor]]
"""values, first and second derivatives along every axis"""


class PinnBaseline:
    """Terms of order two at most along one axis each, Dirichlet and initial conditions, a box.

    Args:
        problem: what to solve.
        top_frequency: of the Fourier features, cycles per unit; None for the plain network.
        seed: of the network, the features and the batches.
    """

    def __init__(self, problem: Problem, top_frequency: float | None, *, seed: int = 0) -> None:
        domain = problem.domain
        assert isinstance(domain, Box)
        self.problem, self.dim = problem, domain.dim
        self._generator = torch.Generator().manual_seed(seed)
        bounds = torch.tensor(domain.bounds, dtype=torch.float64)
        self._middle, self._half = bounds.mean(1), (bounds[:, 1] - bounds[:, 0]) / 2
        self._points = domain.points()
        self._source = self._at(problem.source, self._points)
        largest = max(abs(float(term.coefficient)) for term in problem.pde.terms)
        self._size = float(self._source.square().mean()) or largest**2
        self._faces = []
        for condition in problem.conditions:
            assert isinstance(condition.where, tuple)
            x = domain.face(*condition.where)
            self._faces.append((x, self._at(condition.value, x)))
        self._features = None
        if top_frequency is not None:
            drawn = self._normal(self.dim, _FEATURES)
            slow = torch.arange(_FEATURES) % 2 == 0
            speed = torch.where(slow, 1.0, 2 * math.pi * top_frequency * self._half.max() / 2)
            self._features = drawn * speed
        inputs = self.dim if self._features is None else 2 * _FEATURES
        widths = [inputs, *[_WIDTH] * _DEPTH, 1]
        self._layers = [
            (self._normal(b, a) / math.sqrt(a), torch.zeros(b, dtype=torch.float64))
            for a, b in itertools.pairwise(widths)
        ]
        parameters = [p.requires_grad_(True) for layer in self._layers for p in layer]
        self._optimizer = torch.optim.Adam(parameters, lr=_RATE)

    def run(self, seconds: float) -> int:
        """Train for a budget of CPU seconds; the number of steps made."""
        start, steps = cpu_seconds(), 0
        while cpu_seconds() - start < seconds:
            self._optimizer.zero_grad()
            self.loss().backward()
            self._optimizer.step()
            steps += 1
        return steps

    def loss(self) -> Tensor:
        """Of a random batch of the grid and of the faces."""
        x, f = self._batch(self._points, self._source)
        value, first, second = self._jet(x)
        residual = -f
        for term in self.problem.pde.terms:
            axis = max(range(self.dim), key=lambda k: term.orders[k])
            part = (value, first[axis], second[axis])[term.orders[axis]]
            residual = residual + term.coefficient * part
        if self.problem.pde.nonlinear is not None:
            residual = residual + self.problem.pde.nonlinear(value)
        total = residual.square().mean() / self._size
        for face, wanted in self._faces:
            at, g = self._batch(face, wanted)
            total = total + _FACE_WEIGHT * (self._jet(at)[0] - g).square().mean()
        return total

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """u at points (n, d)."""
        return torch.cat([self._jet(part)[0] for part in x.split(20_000)])

    def _jet(self, x: Tensor) -> _Jet:
        value = (x - self._middle) / self._half
        unit = torch.eye(self.dim, dtype=x.dtype) / self._half
        first = [row.expand_as(value) for row in unit]
        second = [torch.zeros_like(value) for _ in first]
        if self._features is not None:
            angle = value @ self._features
            wave = torch.cat([angle.cos(), angle.sin()], 1)
            turned = torch.cat([-angle.sin(), angle.cos()], 1)
            speeds = [(row @ self._features).repeat(2) for row in unit]
            value, first = wave, [turned * s for s in speeds]
            second = [-wave * s.square() for s in speeds]
        for number, (weight, bias) in enumerate(self._layers):
            value = value @ weight.mT + bias
            first = [d @ weight.mT for d in first]
            second = [d @ weight.mT for d in second]
            if number < len(self._layers) - 1:
                bent = value.tanh()
                slope = 1 - bent.square()
                second = [
                    slope * (b - 2 * bent * a.square()) for a, b in zip(first, second, strict=True)
                ]
                first = [slope * a for a in first]
                value = bent
        return value[:, 0], [d[:, 0] for d in first], [d[:, 0] for d in second]

    def _batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if len(x) <= _BATCH:
            return x, y
        index = torch.randint(len(x), (_BATCH,), generator=self._generator)
        return x[index], y[index]

    def _at(self, value: object, x: Tensor) -> Tensor:
        found = value(x[:, 0] if self.dim == 1 else x) if callable(value) else value
        return torch.as_tensor(found, dtype=torch.float64).expand(len(x))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64)
