"""Study: a fractional bridge, and how close two variational posteriors come to the exact one.

    python models/fractional_bridge.py --out results    # H = .1 ... .9, with and without reversion
    python models/fractional_bridge.py --smoke          # two cases, a minute at most

``dx = -theta x dt + dB_H`` starts from 0 and is seen once, at t = 2, near 0 (Daems et al., ICLR
2024, with the weights of their code). The equation is linear, so that evidence and posterior are
known in closed form; the default guide finds them without training, the published control, a
network, is trained for a given number of steps.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from probkit.fractional import ControlGuide, FractionalSDE, MarkovApproxFBM, MarkovGaussianGuide
from probkit.infer import SVI

NOISE = 0.1
RATES = 0.05 * torch.tensor(20 / 0.05, dtype=torch.float64) ** (
    torch.arange(5, dtype=torch.float64) / 4
)
"""the published grid: five, evenly spaced in their logarithms"""


class Control(torch.nn.Module):
    """``u(t, x, y)`` as published: time by sine and cosine, two hidden layers, last layer zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            *(torch.nn.Linear(8, width), torch.nn.Tanh()),
            *(torch.nn.Linear(width, width), torch.nn.Tanh(), torch.nn.Linear(width, 1)),
        ).double()
        torch.nn.init.zeros_(self.net[-1].weight)
        torch.nn.init.zeros_(self.net[-1].bias)

    def forward(self, t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        clock = torch.stack([torch.sin(t), torch.cos(t)]).expand(len(x), 2)
        found: Tensor = self.net(torch.cat([clock, x, y.flatten(1)], -1))
        return found


class Answer(NamedTuple):
    """ELBO (or log evidence), sd of the path at all times, CPU seconds."""

    elbo: float
    sd: Tensor
    seconds: float


def bridge(hurst: float, reversion: float, num_steps: int) -> FractionalSDE:
    process = MarkovApproxFBM(hurst, weights="l2", rates=RATES, horizon=6.0, normalize="mvn")
    return FractionalSDE(
        lambda t, x: -reversion * x,
        1.0,
        process,
        dt=2 / num_steps,
        num_steps=num_steps,
        observed=torch.tensor([num_steps]),
        noise=NOISE,
    )


def exact(sde: FractionalSDE, reversion: float) -> Answer:
    """Of the same steps: increments are Gaussian, and the path is linear in them."""
    start = time.process_time()
    levels = sde.process.covariance(sde.times())
    increments = levels.diff(dim=0).diff(dim=1)
    N = len(increments)
    steps = torch.eye(N, dtype=levels.dtype)
    steps[1:, :-1] -= (1 - reversion * sde.dt) * torch.eye(N - 1, dtype=levels.dtype)
    half = torch.linalg.solve_triangular(steps, increments, upper=False)
    covariance = torch.linalg.solve_triangular(steps, half.mT, upper=False)
    total = covariance[-1, -1] + NOISE**2
    variance = covariance.diagonal() - covariance[:, -1].square() / total
    sd = torch.cat([torch.zeros(1, dtype=levels.dtype), variance.sqrt()])
    evidence = -0.5 * float(torch.log(2 * math.pi * total))
    return Answer(evidence, sd, time.process_time() - start)


def default_guide(sde: FractionalSDE, y: Tensor, num_paths: int) -> Answer:
    start = time.process_time()
    with torch.no_grad():
        drawn = MarkovGaussianGuide(sde, y).sample(num_paths, seed=0)
    sd = drawn.path.x[..., 0].square().mean(0).sqrt()
    return Answer(float(drawn.elbo), sd, time.process_time() - start)


def published_control(
    sde: FractionalSDE, y: Tensor, num_paths: int, *, steps: int, width: int, seed: int
) -> Answer:
    start = time.process_time()
    torch.manual_seed(seed)
    guide = ControlGuide(sde, y, network=Control(width), gain=False)
    settings = {"num_posterior_samples": 1, "num_diagnostic_samples": 0}
    engine = SVI(steps=steps, learning_rate=1e-3, guide=lambda y: None, **settings)
    engine.fit(guide.model, y, seed=seed)
    with torch.no_grad():
        drawn = guide.sample(num_paths, seed=1)
    sd = drawn.path.x[..., 0].square().mean(0).sqrt()
    return Answer(float(drawn.elbo), sd, time.process_time() - start)


def draw(cases: dict[str, dict[str, Answer]], path: Path) -> None:
    columns = min(3, len(cases))
    rows = math.ceil(len(cases) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    for ax, (title, answers) in zip(panels, cases.items(), strict=False):
        for name, style in (
            ("exact", {"color": "black", "lw": 2.5, "alpha": 0.35}),
            ("default guide", {"color": "tab:blue", "lw": 1.2}),
            ("published control", {"color": "tab:orange", "lw": 1.2, "ls": "--"}),
        ):
            sd = answers[name].sd
            ax.plot(torch.linspace(0, 2, len(sd)), sd, label=name, **style)
        ax.set_title(title, fontsize=10)
    for ax in panels[len(cases) :]:
        ax.set_axis_off()
    panels[0].legend(fontsize=8, frameon=False)
    figure.supxlabel("t", fontsize=10)
    figure.supylabel("posterior sd of x(t)", fontsize=10)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--steps", type=int, default=100, help="training steps of the control")
    parser.add_argument("--width", type=int, default=64, help="hidden units of the control")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="two cases, few steps")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="fractional_bridge_"))
    out.mkdir(parents=True, exist_ok=True)

    grid = [(h / 10, 0.0) for h in range(1, 10)] + [(h / 10, 1.0) for h in range(6, 10)]
    num_steps, num_paths, steps = 200, 4000, options.steps
    if options.smoke:
        grid, num_steps, num_paths, steps = [(0.2, 0.0), (0.8, 1.0)], 50, 500, 3
    cases: dict[str, dict[str, Answer]] = {}
    scores: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'case':24s}{'exact':>9s}{'guide':>9s}{'control':>10s}{'sd error':>10s}{'control':>9s}")
    for hurst, reversion in grid:
        title = f"H = {hurst}, theta = {reversion:g}"
        sde, y = bridge(hurst, reversion, num_steps), torch.zeros(1, 1, dtype=torch.float64)
        settings = {"steps": steps, "width": options.width, "seed": options.seed}
        answers = {
            "exact": exact(sde, reversion),
            "default guide": default_guide(sde, y, num_paths),
            "published control": published_control(sde, y, num_paths, **settings),
        }
        cases[title], truth = answers, answers["exact"]
        scores[title] = {
            name: {
                "elbo": found.elbo,
                "gap": truth.elbo - found.elbo,
                "sd_error": float((found.sd[1:] / truth.sd[1:] - 1).abs().max()),
                "seconds": found.seconds,
            }
            for name, found in answers.items()
        }
        row = scores[title]
        ours, theirs = row["default guide"], row["published control"]
        print(
            f"{title:24s}{truth.elbo:9.3f}{ours['elbo']:9.3f}{theirs['elbo']:10.3f}"
            f"{ours['sd_error']:10.3f}{theirs['sd_error']:9.3f}",
            flush=True,
        )
    draw(cases, out / "bridge.png")
    report = {"title": "Fractional bridge", "scores": scores, "control_steps": steps}
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"report and figure in {out}")


if __name__ == "__main__":
    main()
