"""Study: the drift of a bistable system driven by noise with memory, learned as a neural network.

    python models/fractional_drift.py --out results    # one path of 20 time units, 200 observations
    python models/fractional_drift.py --smoke          # a tenth of it, few steps
    python models/fractional_drift.py --paths 4        # four paths that share their drift

``dx = b(x) dt + .5 dB_H`` with ``b(x) = x - x^3`` is seen every .1 with noise of sd .1. The Pyro
model has a network with priors for b; the path is integrated out, and its posterior comes with the
fit. One path says little about a drift: the report has the error of the likeliest straight line
beside that of the network.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from pyro.nn import PyroModule
from torch import Tensor

from probkit.fractional import FractionalSDE, MarkovGaussianGuide, NeuralDrift, PathMarginal
from probkit.infer import SVI

DIFFUSION, NOISE, DT, EVERY = 0.5, 0.1, 0.01, 10
Drift = Callable[[Tensor, Tensor], Tensor]


def well(t: Tensor, x: Tensor) -> Tensor:
    return x - x**3


class Line(torch.nn.Module):
    """``b(x) = p + q x``, the baseline."""

    def __init__(self) -> None:
        super().__init__()
        self.terms = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.terms[0] + self.terms[1] * x


class Shared(PyroModule):
    """One drift for coordinates that are paths of their own."""

    def __init__(self, drift: NeuralDrift) -> None:
        super().__init__()
        self.one = drift

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        found: Tensor = self.one(t, x[..., None])
        return found[..., 0]


def equation(drift: Drift, hurst: float, num_steps: int, num_paths: int) -> FractionalSDE:
    return FractionalSDE(
        drift,
        DIFFUSION,
        hurst,
        dt=DT,
        num_steps=num_steps,
        observed=torch.arange(EVERY, num_steps + 1, EVERY),
        noise=NOISE,
        initial=(0.0, 1.0),
        dim=num_paths,
    )


def rmse(drift: Drift, path: Tensor) -> float:
    """Over the visited states, the outer tenth left out."""
    x = path.flatten()
    inside = x[(x >= x.quantile(0.05)) & (x <= x.quantile(0.95))]
    states = inside[:, None].expand(-1, path.shape[1])
    zero = torch.zeros((), dtype=x.dtype)
    with torch.no_grad():
        return float((drift(zero, states) - well(zero, states)).square().mean().sqrt())


def draw(
    learned: Drift, line: Drift, path: Tensor, y: Tensor, drawn: Tensor, out: Path, hurst: float
) -> None:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    x = path.flatten()
    grid = torch.linspace(float(x.min()) - 0.2, float(x.max()) + 0.2, 200, dtype=x.dtype)[:, None]
    states, zero = grid.expand(-1, path.shape[1]), torch.zeros((), dtype=x.dtype)
    with torch.no_grad():
        for name, drift, style in (
            ("truth", well, {"color": "black", "lw": 2.5, "alpha": 0.35}),
            ("network", learned, {"color": "tab:blue"}),
            ("straight line", line, {"color": "tab:orange", "ls": "--", "lw": 1}),
        ):
            left.plot(grid[:, 0], drift(zero, states)[:, 0], label=name, **style)
    visits = left.twinx()
    counts, *_ = visits.hist(x.numpy(), bins=40, color="0.85", zorder=0)
    visits.set_ylim(0, 2.5 * counts.max())
    visits.set_yticks([])
    left.set_zorder(visits.get_zorder() + 1)
    left.set_frame_on(False)
    left.set(xlabel="x", ylabel="drift b(x)", ylim=(-2.5, 2.5), title=f"H = {hurst:g}")
    left.legend(fontsize=8, frameon=False)
    t = DT * torch.arange(len(path))
    low, high = drawn[..., 0].quantile(torch.tensor([0.05, 0.95], dtype=x.dtype), 0)
    right.fill_between(t, low, high, color="tab:blue", alpha=0.25, lw=0, label="90 % posterior")
    right.plot(t, drawn[..., 0].mean(0), color="tab:blue", lw=1, label="posterior mean")
    right.plot(t, path[:, 0], color="black", lw=0.6, alpha=0.6, label="path")
    right.plot(t[EVERY::EVERY], y[:, 0], ".", ms=3, color="tab:red", label="observations")
    right.set(xlabel="t", ylabel="x(t)")
    right.legend(fontsize=8, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--hurst", type=float, default=0.7)
    parser.add_argument("--paths", type=int, default=1, help="paths that share their drift")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="small and quick")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="fractional_drift_"))
    out.mkdir(parents=True, exist_ok=True)
    num_steps, steps = (200, 10) if options.smoke else (2000, options.steps)
    shape = (options.hurst, num_steps, options.paths)
    path, y = equation(well, *shape).simulate(seed=options.seed)

    start = time.process_time()
    network = NeuralDrift(seed=options.seed)
    sde = equation(network if options.paths == 1 else Shared(network), *shape)
    marginal = PathMarginal(sde, y, num_paths=8, refresh=20)
    engine = SVI(steps=steps, learning_rate=0.1, guide="AutoDelta", window=20)
    result = engine.fit(marginal, y, seed=options.seed)
    learned = marginal.sde_at(result.posterior.mean())
    seconds = time.process_time() - start
    line = equation(Line(), *shape)
    flat = SVI(
        steps=steps, learning_rate=0.1, guide=lambda y: None, window=20, num_diagnostic_samples=0
    )
    flat.fit(PathMarginal(line, y, num_paths=8, refresh=20), y, seed=options.seed)

    scores, drawn = {}, {}
    for name, fitted in (
        ("network", learned),
        ("straight line", line),
        ("truth", equation(well, *shape)),
    ):
        with torch.no_grad():
            paths = MarkovGaussianGuide(fitted, y).sample(50 if options.smoke else 400)
        drawn[name] = paths.path.x
        scores[name] = {
            "rmse": rmse(fitted.drift, path.x),
            "elbo": float(paths.elbo),
            "importance_gap": float(paths.log_evidence - paths.elbo),
            "khat": paths.khat(),
        }
        values = "  ".join(f"{key} {value:.3f}" for key, value in scores[name].items())
        print(f"{name:14s} {values}")
    draw(learned.drift, line.drift, path.x, y, drawn["network"], out / "drift.png", options.hurst)
    report = {
        "title": f"Double well, H = {options.hurst:g}, {options.paths} path(s)",
        "scores": {"drift": scores},
        "seconds": seconds,
        "status": result.status.name,
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"report and figure in {out}")


if __name__ == "__main__":
    main()
