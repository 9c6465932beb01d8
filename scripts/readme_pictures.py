"""The README's pictures, one a family: ``python scripts/readme_pictures.py [FAMILY ...]``.

Every figure is computed here, from data with a seed or from a bundled data set, by the calls that a
user makes. About two minutes in all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

F64 = torch.float64
OUT = Path(__file__).parents[1] / "docs" / "images"
INK, MAIN, SECOND = "#222222", "#1f6f8b", "#d1495b"


def tensor(path: Path) -> None:
    """A field over place and time from a few of its values, with a gap."""
    from probkit.tensor import FunctionalTucker

    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(0, 1, 40, dtype=F64)
    grid = torch.cartesian_prod(axis, axis, torch.linspace(0, 1, 12, dtype=F64))
    lon, lat, time = grid.unbind(1)
    truth = torch.sin(7 * lon + 2 * time) * torch.cos(5 * lat) + 0.8 * lon * torch.sin(6 * time)
    gap = (lon > 0.6) & (lat > 0.55)  # a region that nobody measured
    seen = torch.randperm(len(grid), generator=generator)[: len(grid) // 15]
    seen = seen[~gap[seen]]
    y = truth[seen] + 0.15 * torch.randn(len(seen), generator=generator, dtype=F64)
    model = FunctionalTucker(rank=3, seed=0).fit(grid[seen], y)
    at = time == time.unique()[6]
    found = model.predict(grid[at], quantiles=[0.5], num_samples=400)
    mean, sd = found["mean"], found["samples"].std(0)
    figure, panels = plt.subplots(1, 4, figsize=(9, 2.2), layout="constrained")
    shown = seen[at[seen]]
    limit = float(truth[at].abs().max())
    field = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    panels[0].scatter(lon[shown], lat[shown], c=y[at[seen]], s=14, **field)
    panels[0].set_title(f"data at one time ({len(shown)} of {int(at.sum())})")
    for ax, values, title in ((panels[1], mean, "mean"), (panels[2], truth[at], "truth")):
        ax.pcolormesh(axis, axis, values.reshape(40, 40).mT, **field)
        ax.set_title(title)
    image = panels[3].pcolormesh(axis, axis, sd.reshape(40, 40).mT, cmap="Greys", vmin=0)
    panels[3].set_title("sd of the surface")
    figure.colorbar(image, ax=panels[3])
    for ax in panels:
        ax.set(xticks=[], yticks=[], aspect="equal", xlim=(0, 1), ylim=(0, 1))
    _save(figure, path)


def sparse(path: Path) -> None:
    """Coefficients on a Kronecker support from a third as many measurements."""
    from probkit.sparse import KroneckerSBL, nmse, simulate_recovery

    problem = simulate_recovery(
        num_measurements=(8, 12, 15), num_atoms=15, num_nonzero=3, snr_db=3, seed=1
    )
    found = KroneckerSBL().recover(problem.y, problem.dictionaries)
    low, high = found.interval(0.9)
    flat = [value.flatten() for value in (problem.x, found.mean, low, high)]
    some = torch.nonzero(flat[0])[:, 0]
    figure, ax = plt.subplots(figsize=(9, 2.2), layout="constrained")
    place = torch.arange(len(some))
    ax.errorbar(
        place,
        flat[1][some],
        torch.stack([flat[1] - flat[2], flat[3] - flat[1]])[:, some],
        fmt="o",
        ms=4,
        capsize=3,
        color=MAIN,
        label=f"mean, 90 % interval (NMSE {nmse(found.mean, problem.x):.4f})",
    )
    ax.plot(place, flat[0][some], "x", color=SECOND, label="truth")
    off = int((flat[1][flat[0] == 0].abs() > 1e-6).sum())
    ax.set(
        xlabel=f"the {len(some)} non-zero of {len(flat[0])} coefficients, {problem.y.numel()} "
        f"measurements; {off} others were kept",
        ylabel="value",
    )
    _finish(ax)
    _save(figure, path)


def pde(path: Path) -> None:
    """A high-frequency Poisson equation whose source was measured with noise."""
    from probkit.pde import PDE, Box, Condition, GPSolver, Problem, Term

    def exact(x: Tensor) -> Tensor:
        return torch.sin(6 * x) * torch.cos(100 * x)

    box = Box([(0.0, 2 * torch.pi)], 400)
    x = box.points()[:, 0]
    source = -10036 * exact(x) - 1200 * torch.cos(6 * x) * torch.sin(100 * x)
    sd = 0.3 * float(source.std())
    generator = torch.Generator().manual_seed(0)
    measured = source + sd * torch.randn(x.shape, generator=generator, dtype=F64)
    ends = [Condition.dirichlet((0, side), exact) for side in (0, 1)]
    solution = GPSolver().fit(Problem(PDE([Term(1.0, (2,))]), box, ends, measured, noise=sd))
    fine = torch.linspace(0, 0.8, 400, dtype=F64)
    mean, band = solution.mean(fine), 1.96 * solution.sd(fine)
    figure, ax = plt.subplots(figsize=(9, 2.2), layout="constrained")
    ax.fill_between(fine, mean - band, mean + band, color=MAIN, alpha=0.25, lw=0, label="95 % band")
    ax.plot(fine, mean, color=MAIN, label="mean")
    ax.plot(fine, exact(fine), ":", color=SECOND, label="truth")
    ax.set(xlabel="x", ylabel="u(x)")
    _finish(ax)
    _save(figure, path)


def fractional(path: Path) -> None:
    """How rough is volatility, with observation noise in the model and without."""
    from arch.data import sp500

    from probkit.fractional import HurstModel

    table = sp500.load()
    high, low, start, end = (
        torch.tensor(table[name].to_numpy(), dtype=F64) for name in ("High", "Low", "Open", "Close")
    )
    square = (
        0.5 * (high / low).log().square()
        - (2 * torch.log(torch.tensor(2.0)) - 1) * (end / start).log().square()
    )
    y = 0.5 * square.log()
    model = HurstModel("levels", seed=0).fit(y)
    bare = HurstModel("levels", noise=False, seed=0).fit(y)
    ahead = model.predict(torch.arange(len(y), len(y) + 60))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 2.2), layout="constrained", width_ratios=(2, 1)
    )
    past = torch.arange(len(y) - 250, len(y))
    left.plot(past, y[past], color=INK, lw=0.7, label="S&P 500, log daily volatility")
    after = torch.arange(len(y), len(y) + 60)
    left.plot(after, ahead["mean"], color=MAIN, label="forecast, 90 %")
    left.fill_between(after, *ahead["quantiles"], color=MAIN, alpha=0.25, lw=0)
    left.set(xlabel="day")
    _finish(left)
    for fit, colour, label in ((model, MAIN, "noise in the model"), (bare, SECOND, "ignored")):
        draws = fit.result_.posterior.draws["hurst"].flatten()
        right.hist(draws, 40, density=True, color=colour, alpha=0.6, label=label)
    right.set(xlabel="Hurst index", yticks=[])
    _finish(right)
    _save(figure, path)


def similarity(path: Path) -> None:
    """A density of private records, released once, against the exact one."""
    from probkit.privacy import PrivacyAccountant
    from probkit.similarity import recommend

    generator = torch.Generator().manual_seed(0)
    which = torch.rand(20_000, generator=generator) < 0.3
    centre = torch.where(which[:, None], torch.tensor([3.0, 6.5]), torch.tensor([6.5, 4.0]))
    records = centre.double() + 1.1 * torch.randn(20_000, 2, generator=generator, dtype=F64)
    accountant = PrivacyAccountant(epsilon=0.5, relation="replace")
    choice = recommend(20_000, 2, "gaussian", accountant.budget, bandwidth=1.0, bounds=(0.0, 10.0))
    release = choice.build().update(records).release(accountant)
    axis = torch.linspace(0, 10, 60, dtype=F64)
    points = torch.cartesian_prod(axis, axis)
    answer = release.query(points)
    exact = torch.cat(
        [torch.exp(-torch.cdist(some, records).square()).mean(1) for some in points.split(300)]
    )
    figure, panels = plt.subplots(1, 4, figsize=(9, 2.2), layout="constrained")
    limit = float(exact.max())
    titles = ("exact", "released, epsilon = 0.5")
    for ax, values, title in zip(panels, (exact, answer.value), titles, strict=False):
        ax.pcolormesh(axis, axis, values.reshape(60, 60).mT, cmap="cividis", vmin=0, vmax=limit)
        ax.set_title(title)
    gap = answer.value - exact
    image = panels[2].pcolormesh(axis, axis, gap.reshape(60, 60).mT, cmap="RdBu_r")
    figure.colorbar(image, ax=panels[2])
    panels[2].set_title("difference")
    for ax in panels[:3]:
        ax.set(xticks=[], yticks=[], aspect="equal")
    panels[3].hist(gap / answer.sd, 40, density=True, color=MAIN, alpha=0.7)
    z = torch.linspace(-4, 4, 100)
    panels[3].plot(z, torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5, color=SECOND)
    panels[3].set(yticks=[], title="difference / stated sd")
    _save(figure, path)


PICTURES: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (tensor, sparse, pde, fractional, similarity)
}


def _finish(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)


def _save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 9})
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name](OUT / f"{name}.png")
        print(OUT / f"{name}.png")


if __name__ == "__main__":
    main()
