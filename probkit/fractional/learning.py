"""``PathMarginal``: parameters of a fractional SDE learned with its path integrated out.

By Fisher's identity the gradient of the log evidence is that of the complete data's density,

    d log p(y; theta) = E[d log p(x; theta)],   x ~ p(path given y; theta),

so that paths are drawn from the guide now and then, and in between every step of the optimiser is
one evaluation of drift and diffusion on all points of all paths (``increments``): this is
Monte-Carlo EM with gradient steps, at a twentieth of the time of derivatives through the steps of
the path, and with less noise for drifts. The modes of the noise, which the guide draws too, are
integrated out of p(x). The value is the ELBO of the guide at the last draw plus the mean change of
log p(x) since: the ELBO for that fixed law of the path.

The scale and the Hurst index of the noise are all but known once a path is, so a draw ties them
to what they were; learn them by ``SVI(guide=guide).fit(sde, y)``.
Source of the idea: Wei & Tanner, JASA 85 (1990). Cost of a step: S N (K + terms).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from probkit.errors import ConfigurationError, message
from probkit.fractional.guide import GuidePaths, MarkovGaussianGuide
from probkit.fractional.increments import path_log_density, whitening
from probkit.fractional.sde import FractionalSDE
from probkit.infer.native.lowering import Unsupported
from probkit.validation import require_all_positive

__all__ = ["PathMarginal"]


class PathMarginal:
    """Pyro model of the drift's parameters alone, for any engine of variational inference.

    ``PyroSample`` priors of a drift that is a ``PyroModule`` are its unknowns:
    ``SVI(guide="AutoDelta")`` finds their posterior mode. Parameters of plain torch modules are
    maximised; where there is nothing else say ``SVI(guide=lambda y: None)``. Steps are eager and
    use the paths of the steps before, so that a fit that is interrupted and resumed draws other
    paths than one in one go.

    Args:
        sde: the model. Its drift is learned; what its diffusion and its Hurst index are is known.
        y: observations, (M, D) for Gaussian ones.
        num_paths: paths of a draw.
        refresh: steps between two draws.

    Attributes:
        guide: law of the path under the parameters of the last draw; None before the first.

    Raises:
        ConfigurationError: a setting that is not positive, or a Hurst index that is not known.

    Example:
        >>> from probkit.fractional import FractionalSDE
        >>> from probkit.infer import SVI
        >>> settings = {"dt": 0.1, "num_steps": 100, "observed": torch.arange(1, 101)}
        >>> truth = FractionalSDE(lambda t, x: 1 - 2 * x, 0.5, 0.7, **settings)
        >>> _, y = truth.simulate(seed=0)
        >>> class Line(torch.nn.Linear):
        ...     def forward(self, t, x):
        ...         return super().forward(x)
        >>> sde = FractionalSDE(Line(1, 1, dtype=torch.float64), 0.5, 0.7, **settings)
        >>> marginal = PathMarginal(sde, y, num_paths=8)
        >>> engine = SVI(steps=60, guide=lambda y: None, num_diagnostic_samples=0)
        >>> result = engine.fit(marginal, y)
        >>> bool(result.history["objective"][-1] > result.history["objective"][0])
        True
    """

    guide: MarkovGaussianGuide | None

    def __init__(
        self, sde: FractionalSDE, y: Tensor, *, num_paths: int = 16, refresh: int = 10
    ) -> None:
        require_all_positive(num_paths=num_paths, refresh=refresh)
        if sde.learn_hurst or sde.hurst_prior is not None:
            raise ConfigurationError(
                message(
                    "The Hurst index cannot be learned from paths that are held fixed",
                    where="hurst",
                    remedy="learn it by SVI(guide=MarkovGaussianGuide(sde, y)).fit(sde, y)",
                )
            )
        self.sde, self.y = sde, y
        self.num_paths, self.refresh = num_paths, refresh
        parts = (sde.process, sde.dt, sde.num_steps)
        self._filters = [whitening(*parts, i) for i in range(sde.process.hurst.numel())]
        self.guide, self._age = None, 0

    def __call__(self, y: Tensor) -> None:
        """The Pyro model; ``y`` is that of the construction."""
        self.sde(y, marginal=self._log_marginal)

    def _log_marginal(self, y: Tensor) -> Tensor:
        if torch._C._functorch.get_interpreter_stack():
            raise Unsupported("paths are drawn between steps")
        fresh = self._age % self.refresh == 0
        if fresh:
            self._draw()
        log_p = path_log_density(self.sde, self._drawn.path.x, self._filters).mean()
        if fresh:
            self._before = log_p.detach()
        self._age += 1
        return log_p - self._before + self._drawn.elbo

    def sde_at(self, values: Mapping[str, Tensor]) -> FractionalSDE:
        """The equation with the unknowns at the values of these sites, as a posterior has them.

        Example:
            >>> # MarkovGaussianGuide(marginal.sde_at(result.posterior.mean()), y)
        """
        found = copy.deepcopy(self.sde)
        for site, value in values.items():
            *parents, name = site.split(".")
            module = found.get_submodule(".".join(parents))
            delattr(module, name)
            module.register_buffer(name, torch.as_tensor(value).detach().clone())
        return found

    def _draw(self) -> None:
        with torch.no_grad():
            if self.guide is None:
                self.guide = MarkovGaussianGuide(self.sde, self.y)
            else:
                self.guide.condition(self._drawn.path.x)
            seed = int(torch.randint(2**62, ()))
            self._drawn: GuidePaths = self.guide.sample(self.num_paths, seed=seed)
