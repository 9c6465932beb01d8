"""Guides over one flat vector that can be built from a manifest: Gaussians and a flow.

With z the unknowns on the real line, d of them,

    mean_field   z = m + s e                          2 d parameters
    low_rank     z = m + s e + F e', F (d, r)         (2 + r) d
    full_rank    z = m + s L e, L unit lower          d (d + 3) / 2
    flow         z = T_2(T_1(m + s e))                two inverse autoregressive layers

and e standard normal. Unlike Pyro's autoguides they know their sites from a
``site_layout.SiteLayout``, so that a saved fit draws anew without model and data.

Sources: Kucukelbir et al., JMLR 18 (2017); Ong, Nott & Smith, JCGS 27 (2018); Kingma et al.,
NeurIPS 2016 (flows, by Pyro's transforms). Cost of a draw: the number of parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import affine_autoregressive
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints

from probkit.errors import ConfigurationError, message
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.seeding import pyro_seed
from probkit.infer.site_layout import SiteLayout

__all__ = ["FORMS", "FlatGuide"]

FORMS = ("mean_field", "low_rank", "full_rank", "flow")
_SCALE, _FLOW_LAYERS = 0.1, 2


class FlatGuide(PyroModule):  # type: ignore[misc]
    """A guide of one of the four forms.

    Args:
        layout: the unknowns.
        form: "mean_field", "low_rank", "full_rank" or "flow".
        location: (size,) starting point, zeros if None.

    Example:
        >>> def model():
        ...     pyro.sample("rate", dist.Gamma(torch.tensor(2.0).double(), 1.0))
        >>> guide = FlatGuide.of(model, ModelArguments.of(None), "full_rank")
        >>> again = FlatGuide.from_spec(guide.spec(), guide.state_dict())
        >>> bool((guide.draw(3, seed=0)["rate"] == again.draw(3, seed=0)["rate"]).all())
        True
    """

    def __init__(self, layout: SiteLayout, form: str, location: Tensor | None = None) -> None:
        super().__init__()
        if form not in FORMS:
            raise ConfigurationError(
                message("There is no such form of a guide", where="guide", got=form, expected=FORMS)
            )
        self.layout, self.form = layout, form
        size = layout.size
        start = (
            torch.zeros(size, dtype=layout.dtype) if location is None else location.detach().clone()
        )
        self.loc = PyroParam(start.clone())
        self.scale = PyroParam(start.new_full((size,), _SCALE), constraints.positive)
        if form == "low_rank":
            rank = max(1, round(size**0.5))
            # not zero, where its gradient would vanish
            spread = torch.randn(size, rank, dtype=layout.dtype).to(start.device)
            self.factor = PyroParam(spread * (_SCALE / rank**0.5))
        if form == "full_rank":
            self.lower = PyroParam(start.new_zeros(size, size))
        if form == "flow":
            width = [max(2 * size, 16)] * 2
            layers = [affine_autoregressive(size, hidden_dims=width) for _ in range(_FLOW_LAYERS)]
            self.layers = torch.nn.ModuleList(layers).to(start)

    @classmethod
    def of(cls, model: Callable[..., Any], arguments: ModelArguments, form: str) -> FlatGuide:
        """The guide of a model's unknowns, at the median of a few prior draws."""
        layout = SiteLayout.of(model, arguments)
        return cls(layout, form, layout.median(model, arguments))

    def base(self) -> Any:
        """The distribution of the flat vector."""
        if self.form == "low_rank":
            return dist.LowRankMultivariateNormal(self.loc, self.factor, self.scale.square())
        if self.form == "full_rank":
            unit = self.lower.tril(-1) + torch.eye(
                self.layout.size, dtype=self.loc.dtype, device=self.loc.device
            )
            return dist.MultivariateNormal(self.loc, scale_tril=self.scale[:, None] * unit)
        normal = dist.Normal(self.loc, self.scale).to_event(1)
        if self.form == "flow":
            return dist.TransformedDistribution(normal, list(self.layers))
        return normal

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """As Pyro calls a guide; the arguments are those of the model and are not looked at."""
        flat = pyro.sample("_flat", self.base(), infer={"is_auxiliary": True})
        if flat.dim() > 1:
            raise ConfigurationError(
                message(
                    "Guides by form draw one particle at a time",
                    where="vectorize_particles",
                    got=True,
                    expected=False,
                )
            )
        values, log_det = self.layout.values(flat)
        share = -log_det / len(values)
        for name, value in values.items():
            law = dist.Delta(value, log_density=share, event_dim=value.dim())
            pyro.sample(name, law)
        return values

    @torch.no_grad()
    def draw(self, num_samples: int, seed: int) -> dict[str, Tensor]:
        """Draws by site, (num_samples, *event)."""
        with pyro_seed(seed):
            return self.layout.values(self.base().sample((num_samples,)))[0]

    def spec(self) -> dict[str, Any]:
        """JSON-able; with ``state_dict()`` it is the whole guide."""
        return {"form": self.form, "layout": self.layout.spec()}

    @classmethod
    def from_spec(cls, spec: dict[str, Any], state: dict[str, Tensor]) -> FlatGuide:
        """From :meth:`spec` and ``state_dict()``."""
        guide = cls(SiteLayout.from_spec(spec["layout"]), spec["form"])
        guide.load_state_dict(state)
        return guide
