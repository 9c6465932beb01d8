"""T12, T13: intervals at unseen coordinates, and recovery of lengthscales, on known truths."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from benchmarks.frame import Context, Line, row
from benchmarks.tensor.adapter import fit, latent, lengthscales, noise_sd, rmse, scores
from probkit.tensor.simulate import SimulatedTensor, simulate_functional_tucker

_SETTINGS = {"rank": 2, "structure": "cp", "likelihood": "gaussian", "kernels": "matern32"}


def unseen_case(seed: int) -> tuple[SimulatedTensor, torch.Tensor, torch.Tensor]:
    """Three modes of 120, 150, 200 coordinates, a fifth of each never seen in training.

    Returns the data with masks of training (about 3 000 entries) and test entries.
    """
    data = simulate_functional_tucker(
        8000,
        num_coordinates=(120, 150, 200),
        rank=2,
        lengthscales=(0.3, 0.2, 0.15),
        nu=1.5,
        noise=0.1,
        unseen_fraction=0.2,
        generator=100 + seed,
    )
    train = ~data.unseen & (torch.arange(8000) < 6000)
    return data, train, data.unseen


@row("T12", "calibration at unseen coordinates")
def calibration(context: Context) -> Iterator[Line]:
    seeds = context.size(10, 1)
    table: dict[str, list[float]] = {key: [] for key in ("y", "f", "noise", "rmse")}
    for seed in range(seeds):
        data, train, test = unseen_case(seed)
        model = fit(data.x[train], data.y[train], seed=seed, **_SETTINGS)
        mean, sd = latent(model, data.x[test])
        table["y"].append(scores(model, data.x[test], data.y[test]).coverage)
        table["f"].append(float(((data.f[test] - mean).abs() <= 1.6449 * sd).double().mean()))
        table["noise"].append(abs(noise_sd(model) / 0.1 - 1))
        table["rmse"].append(rmse(mean, data.f[test]))
    name = f"unseen coordinates, {seeds} seeds:"
    yield Line("coverage_y", f"{name} 90 % coverage of y", _mean(table["y"]))
    yield Line("coverage_f", f"{name} 90 % coverage of f", _mean(table["f"]))
    yield Line("noise", f"{name} worst error of the noise sd", max(table["noise"]))
    yield Line("rmse_f", f"{name} mean RMSE of f", _mean(table["rmse"]))
    gibbs = _mean([_gibbs_coverage(seed) for seed in range(seeds)])
    yield Line("gibbs_coverage_f", f"{name} 90 % coverage of f, Gibbs", gibbs)


def _gibbs_coverage(seed: int) -> float:
    """Share of f inside the central 90 % of draws by the Gibbs engine."""
    from probkit.infer import Gibbs

    data, train, test = unseen_case(seed)
    engine = Gibbs(num_samples=300, num_warmup=100, num_chains=1)
    model = fit(data.x[train], data.y[train], engine=engine, seed=seed, **_SETTINGS)
    draws = model.predict(data.x[test], num_samples=300)["samples"]
    low, high = torch.quantile(draws, torch.tensor([0.05, 0.95]).to(draws), dim=0)
    return float(((data.f[test] >= low) & (data.f[test] <= high)).double().mean())


@row("T13", "recovery of lengthscales")
def recovered_lengthscales(context: Context) -> Iterator[Line]:
    truth = (0.2, 0.1, 0.05)
    seeds = context.size(10, 1)
    for nu, name in ((0.5, "half"), (1.5, "three_halves")):
        found = torch.tensor([_learned(nu, truth, seed, context) for seed in range(seeds)])
        factor = (found / torch.tensor(truth)).log()
        third = (factor[:, 2].abs() <= math.log(1.6)).double().mean()
        worst = factor.mean(0).abs().max().exp()
        yield Line(f"third_{name}", f"nu = {nu}: share of third l within 1.6x", float(third))
        yield Line(f"mean_{name}", f"nu = {nu}: worst factor of the geometric mean", float(worst))


def _learned(nu: float, truth: tuple[float, ...], seed: int, context: Context) -> list[float]:
    data = simulate_functional_tucker(
        context.size(20_000, 4_000),
        num_coordinates=(200, 200, 200),
        rank=1,
        lengthscales=truth,
        nu=nu,
        noise=0.1,
        noise_is_relative=True,
        generator=seed,
    )
    model = fit(
        data.x,
        data.y,
        rank=1,
        structure="cp",
        kernels="matern12" if nu == 0.5 else "matern32",
        likelihood="gaussian",
        seed=seed,
    )
    return [float(value[0]) for value in lengthscales(model)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
