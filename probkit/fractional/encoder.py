"""An amortised posterior of the Hurst index: a network proposes, the exact filter corrects.

Trained once on series simulated from the prior, the network maps standardised increments to a
proposal ``q(H, noise | y)``, which is the minimiser of the mean divergence KL(p || q); there is no
training at a new series. Draws of the proposal then get the weights

    log w = log p(y | H, noise) + log p(H, noise) - log q(H, noise | y)

with the exact likelihood of ``grid``, the scale integrated out; Pareto k-hat says whether the
weights can be trusted. Unknowns are proposed on the logit scale of their ranges by Student's t
distributions, that of the noise around a line in the index. The network sees increments through
convolutions and through the variances of sums over 1, 2, 4, ... of them.
Cost: one run of the network, and one filter at each of the proposed points, for every series.
Source: Le, Baydin & Wood, AISTATS 2017 (training on simulations).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from probkit.errors import ConfigurationError, message
from probkit.fractional.batch_filter import filter_batch
from probkit.fractional.grid import NOISE_RANGE
from probkit.fractional.series import Series
from probkit.fractional.system import fractional_system
from probkit.infer import SVI, Batches, FitResult, WeightedDraws
from probkit.infer.importance import K_HAT_LIMIT
from probkit.infer.seeding import pyro_seed
from probkit.random import Seed, as_generator, spawn_seeds
from probkit.statespace.fractional_noise import fgn_autocovariance
from probkit.statespace.fractional_tables import HURST_RANGE
from probkit.validation import check_choice, check_whole

__all__ = ["HurstEncoder", "ProposedDraws"]

_DEGREES = 5.0
_HIDDEN = 64
_MIN_LENGTH, _MOST = 32, 10_000_000


@dataclass(frozen=True)
class ProposedDraws:
    """Draws of a batch of series in units of a step, ``hurst``, ``log_scale`` and ``log_noise``.

    Attributes:
        draws: resampled by weight, (chain, draw, series) by site.
        diagnostics: ``khat`` (the largest), ``khat_by_series``, ``importance_ess`` (the least).
        importance: the weighted draws of a single series; None for a batch.
    """

    draws: dict[str, Tensor]
    diagnostics: dict[str, Any]
    importance: WeightedDraws | None


class HurstEncoder:
    """Proposals for series of one length, given to ``HurstModel`` as its engine.

    Args:
        kind: "levels" or "increments", as for ``HurstModel``.
        length: increments of a series: values for increments, one less for levels.
        noise: whether values carry noise.
        width: channels of the convolutions.
        num_proposals: points that are weighed for each series.

    Attributes:
        training_: the :class:`probkit.infer.FitResult` of the training; its history holds the
            mean log density of the truth under the proposal.

    Raises:
        ConfigurationError: an unknown kind, or fewer than 32 increments.

    Example:
        >>> from probkit.fractional import HurstModel
        >>> from probkit.statespace.fractional_noise import sample_fgn
        >>> encoder = HurstEncoder("increments", 64, noise=False).train(steps=60, seed=0)
        >>> y = sample_fgn(0.3, 64, 1, seed=1)[0]
        >>> found = HurstModel("increments", noise=False, engine=encoder).fit(y).result_
        >>> abs(float(found.posterior.mean()["hurst"]) - 0.3) < 0.2
        True
    """

    def __init__(
        self,
        kind: str,
        length: int,
        *,
        noise: bool = True,
        width: int = 24,
        num_proposals: int = 500,
    ) -> None:
        check_choice("kind", "kind", kind, ("levels", "increments"))
        length = check_whole("length", length, _MIN_LENGTH, _MOST)
        self.kind, self.length, self.noise = kind, length, noise
        self.width, self.num_proposals = width, num_proposals
        with pyro_seed(0):
            self._network = _Network(length, width, 5 if noise else 2).double()

    def train(
        self,
        *,
        steps: int = 2000,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        seed: Seed = 0,
        progress: bool = False,
    ) -> HurstEncoder:
        """Train on fresh simulations at every step, from new starting weights.

        Args:
            steps: gradient steps.
            batch_size: simulated series in each.
            learning_rate: of Adam at the start; it falls to a tenth.
            seed: of weights and simulations.
            progress: show a progress bar.
        """
        generator = as_generator(seed)
        with pyro_seed(spawn_seeds(generator, 1)[0]):
            self._network = _Network(self.length, self.width, 5 if self.noise else 2).double()
        network = self._network

        def model(increments: Tensor, truth: Tensor) -> None:
            pyro.module("encoder", network)
            _nothing(increments, truth)
            proposal = _Proposal(network(increments))
            with pyro.plate("series", len(truth)):
                pyro.factor("truth", proposal.log_prob(truth))

        engine = SVI(
            steps=steps,
            learning_rate=learning_rate,
            guide=_nothing,
            num_posterior_samples=1,
            num_diagnostic_samples=0,
            compile="off",
        )
        stream = Batches(_Simulations(self, batch_size, generator), batch_size)
        self.training_: FitResult = engine.fit(model, stream, seed=seed, progress=progress)
        return self

    def draw(self, series: Series, num_samples: int, seed: Seed) -> ProposedDraws:
        """Weigh proposals for every series and resample them.

        Raises:
            ConfigurationError: series of another kind or length, with missing values or uneven
                times.
        """
        self._check(series)
        generator = as_generator(seed)
        values = series.values
        if not series.increments:
            values = torch.cat([series.first[:, None], values], 1).diff()
        with torch.no_grad():
            outputs = self._network(values)
        rows, weighed = [], []
        for r, output in enumerate(outputs):
            one = replace(series, values=series.values[r : r + 1], first=series.first[r : r + 1])
            found = self._weigh(one, output, generator)
            weighed.append(found)
            rows.append(found.sample(num_samples, generator))
        draws = {name: torch.stack([row[name] for row in rows], -1)[None] for name in rows[0]}
        shapes = [found.khat for found in weighed]
        figures = [found.diagnostics() for found in weighed]
        diagnostics: dict[str, Any] = {
            "khat": max(shapes),
            "khat_by_series": shapes,
            "importance_ess": min(figure["importance_ess"] for figure in figures),
        }
        if diagnostics["khat"] > K_HAT_LIMIT:
            count = sum(shape > K_HAT_LIMIT for shape in shapes)
            diagnostics["warnings"] = [
                f"PSIS k-hat is above {K_HAT_LIMIT} for {count} of {len(shapes)} series: train the "
                "encoder for longer, or use the grid (engine=None)"
            ]
        return ProposedDraws(draws, diagnostics, weighed[0] if len(weighed) == 1 else None)

    def save(self, path: str | Path) -> Path:
        """Write weights and settings to one ``.safetensors`` file."""
        names = ("kind", "length", "noise", "width", "num_proposals")
        settings = {name: getattr(self, name) for name in names}
        tensors = {name: value.contiguous() for name, value in self._network.state_dict().items()}
        save_file(tensors, str(path), {"encoder": json.dumps(settings)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> HurstEncoder:
        """Read what :meth:`save` wrote.

        Raises:
            ConfigurationError: no such file, or one of something else.
        """
        try:
            with safe_open(str(path), "pt") as file:
                settings = json.loads((file.metadata() or {})["encoder"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            made = cls(settings.pop("kind"), settings.pop("length"), **settings)
            made._network.load_state_dict(tensors)
        except Exception as error:  # of a file of anything else: any
            raise ConfigurationError(
                message(
                    "The file holds no encoder",
                    where="path",
                    got=f"{path} ({type(error).__name__}: {error})",
                    expected="a file written by HurstEncoder.save",
                )
            ) from error
        return made

    def _weigh(self, series: Series, output: Tensor, generator: torch.Generator) -> WeightedDraws:
        """Weighted proposals (S,) for one series."""
        proposal = _Proposal(output)
        z = proposal.sample(self.num_proposals, generator)
        unknowns = _from_line(z)
        log_noise = unknowns[..., 1] if self.noise else None
        noise = torch.zeros_like(z[..., 0]) if log_noise is None else log_noise.exp()
        system = fractional_system(unknowns[..., 0], noise, None, series.span)
        pieces = filter_batch(system, series)
        quadratic, count = pieces.quadratic[0], pieces.num_observed
        log_likelihood = -0.5 * (count * torch.log(quadratic) + pieces.log_variance)
        prior = (logsigmoid(z) + logsigmoid(-z)).sum(-1)
        shape = torch.full_like(quadratic, count / 2)
        square = quadratic / 2 / torch._standard_gamma(shape, generator)
        draws = {"hurst": unknowns[..., 0], "log_scale": 0.5 * torch.log(square)}
        if log_noise is not None:
            draws["log_noise"] = log_noise
        return WeightedDraws(draws, log_likelihood + prior - proposal.log_prob(z))

    def _check(self, series: Series) -> None:
        kind = "increments" if series.increments else "levels"
        got = {
            "kind": kind,
            "length": series.values.shape[1],
            "missing": series.num_missing,
            "times": "even" if len(series.distinct) == 1 else "uneven",
        }
        expected = {"kind": self.kind, "length": self.length, "missing": 0, "times": "even"}
        if got != expected:
            raise ConfigurationError(
                message(
                    "The encoder was made for other series",
                    where="engine",
                    got=got,
                    expected=expected,
                    remedy="train an encoder for these, or use the grid (engine=None)",
                )
            )


class _Network(nn.Module):
    """Increments (R, N) to the parameters of their proposals (R, 2 or 5)."""

    def __init__(self, length: int, width: int, num_outputs: int) -> None:
        super().__init__()
        self.sums = [2**k for k in range((length // 8).bit_length())]
        layers: list[nn.Module] = []
        for channels, size in ((1, 7), (width, 5), (width, 5)):
            layers += [nn.Conv1d(channels, width, size, stride=2, padding=size // 2), nn.GELU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(2 * width + len(self.sums) - 1, _HIDDEN),
            *(nn.GELU(), nn.Linear(_HIDDEN, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, num_outputs)),
        )

    def forward(self, increments: Tensor) -> Tensor:
        x = increments / increments.square().mean(-1, True).sqrt()
        seen = self.convolutions(x[:, None])
        path = torch.nn.functional.pad(x.cumsum(-1), (1, 0))
        spreads = [(path[:, s:] - path[:, :-s]).square().mean(-1).log() for s in self.sums[1:]]
        features = [seen.mean(-1), seen.square().mean(-1), torch.stack(spreads, -1)]
        found: Tensor = self.head(torch.cat(features, -1))
        return found


class _Proposal:
    """Student's t for the index, and for the noise around a line in the index, on the real line."""

    def __init__(self, output: Float[Tensor, "*R outputs"]) -> None:
        self._output = output

    def log_prob(self, z: Float[Tensor, "*S unknowns"]) -> Tensor:
        value = self._law(0).log_prob(z[..., 0])
        if z.shape[-1] > 1:
            value = value + self._law(2, self._shift(z[..., 0])).log_prob(z[..., 1])
        return value

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        hurst = self._draw(self._law(0), count, generator)
        if self._output.shape[-1] == 2:
            return hurst[..., None]
        law = self._law(2, self._shift(hurst))
        return torch.stack([hurst, self._draw(law, count, generator)], -1)

    def _law(self, first: int, shift: Tensor | float = 0.0) -> Any:
        location, log_scale = self._output[..., first], self._output[..., first + 1]
        return dist.StudentT(_DEGREES, location + shift, torch.exp(log_scale))

    def _shift(self, hurst: Tensor) -> Tensor:
        return self._output[..., 4] * (hurst - self._output[..., 0])

    def _draw(self, law: Any, count: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(count, generator=generator, dtype=law.loc.dtype)
        gamma = torch._standard_gamma(torch.full_like(normal, _DEGREES / 2), generator)
        return law.loc + law.scale * normal * (_DEGREES / 2 / gamma).sqrt()


class _Simulations:
    """An endless stream of batches: increments (B, N), and the truth on the real line."""

    def __init__(self, encoder: HurstEncoder, size: int, generator: torch.Generator) -> None:
        self._encoder, self._size, self._generator = encoder, size, generator

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield self._batch()

    def _batch(self) -> tuple[Tensor, Tensor]:
        length, generator = self._encoder.length, self._generator
        shape = (self._size, 2 if self._encoder.noise else 1)
        z = torch.logit(torch.rand(shape, generator=generator, dtype=torch.float64), eps=1e-12)
        unknowns = _from_line(z)
        row = fgn_autocovariance(unknowns[:, 0], length + 1)
        circulant = torch.cat([row, row[:, 1:-1].flip(-1)], -1)
        root = torch.fft.rfft(circulant).real.clamp_min(0).sqrt()
        white = torch.randn(circulant.shape, generator=generator, dtype=torch.float64)
        moves = torch.fft.irfft(torch.fft.rfft(white) * root, n=circulant.shape[1])[:, :length]
        if self._encoder.noise:
            levels = self._encoder.kind == "levels"
            size = length + 1 if levels else length
            errors = torch.randn(len(z), size, generator=generator, dtype=torch.float64)
            errors = errors.diff() if levels else errors
            moves = moves + errors * (unknowns[:, 1:] / 2).exp()
        return moves, z


def _from_line(z: Tensor) -> Tensor:
    """Index, and logarithm of the noise ratio, of points on the real line."""
    spans = z.new_tensor((HURST_RANGE, NOISE_RANGE)[: z.shape[-1]])
    return spans[:, 0] + (spans[:, 1] - spans[:, 0]) * torch.sigmoid(z)


def _nothing(increments: Tensor, truth: Tensor) -> None:
    """The guide of a model without unknowns but its parameters: results hold one site at least."""
    pyro.sample("nothing", dist.Delta(increments.new_zeros(())))
