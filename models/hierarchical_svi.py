"""Study: an effect for each of many groups, with one engine or another, on one process or several.

    python models/hierarchical_svi.py --out results                       # simulated, 1 000 groups
    torchrun --nproc-per-node 2 models/hierarchical_svi.py --engine svi   # the rows are dealt out
    python models/hierarchical_svi.py --engine hmc
    python models/hierarchical_svi.py --data mine.csv                     # columns: group, x..., y
    python models/hierarchical_svi.py --smoke                             # small, under a minute

With a few rows for each group, a group's own mean is a poor estimate; a hierarchical model pulls it
towards the others by as much as the data say. The data are simulated, so that the report can tell
how much better the pulled estimates are, and whether their intervals hold what they promise.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import probkit.infer
from probkit.infer import SVI, DataParallelSVI, FitResult, process_group
from probkit.plot import plot_history
from probkit.report import write_report

ENGINES = {"svi": "SVI", "nuts": "NUTS", "hmc": "HMC", "laplace": "Laplace"}


def model(group: Tensor, x: Tensor, y: Tensor, num_groups: int) -> None:
    """y_n = mu + theta_{g(n)} + x_n' w + noise, one theta for each group; rows in long format."""
    zero = torch.zeros((), dtype=y.dtype, device=y.device)
    mu = pyro.sample("mu", dist.Normal(zero, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(zero + 2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(zero + 2.0))
    w = pyro.sample("w", dist.Normal(zero, 2.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("groups", num_groups):
        theta = pyro.sample("theta", dist.Normal(zero, tau))
    with pyro.plate("rows", len(y)):
        mean = mu + theta[group] + (x * w).sum(-1)
        pyro.sample("y", dist.Normal(mean, sigma), obs=y)


def simulate(num_groups: int, rows: int, seed: int) -> tuple[dict[str, Any], Tensor]:
    """``rows`` rows for each group, two covariates; the data and the true effects."""
    generator = torch.Generator().manual_seed(seed)
    theta = 0.8 * torch.randn(num_groups, generator=generator, dtype=torch.float64)
    group = torch.arange(num_groups).repeat_interleave(rows)
    x = torch.randn(len(group), 2, generator=generator, dtype=torch.float64)
    noise = 1.2 * torch.randn(len(group), generator=generator, dtype=torch.float64)
    y = 1.0 + theta[group] + x @ x.new_tensor([0.5, -1.0]) + noise
    return {"group": group, "x": x, "y": y, "num_groups": num_groups}, theta


def read(path: Path) -> dict[str, Any]:
    """A CSV file: the first column names the group, the last is y, the others are covariates."""
    import pandas as pd

    frame = pd.read_csv(path)
    codes, names = pd.factorize(frame.iloc[:, 0])
    values = torch.as_tensor(frame.iloc[:, 1:].to_numpy(float))
    group = torch.as_tensor(codes.copy())
    return {"group": group, "x": values[:, :-1], "y": values[:, -1], "num_groups": len(names)}


def scores(result: FitResult, data: dict[str, Any], theta: Tensor) -> dict[str, dict[str, float]]:
    """Error and coverage of the groups' effects, beside the groups' own means."""
    mean = result.posterior.mean()["theta"]
    low, high = result.posterior.quantile([0.05, 0.95])["theta"]
    group, y = data["group"], data["y"] - data["x"] @ result.posterior.mean()["w"]
    count = torch.bincount(group, minlength=len(theta))
    own = torch.zeros_like(theta).index_add(0, group, y - y.mean()) / count
    inside = (low <= theta) & (theta <= high)
    return {
        "probkit": {"rmse": _rmse(mean, theta), "coverage_90": float(inside.double().mean())},
        "group means": {"rmse": _rmse(own, theta)},
        "no groups": {"rmse": _rmse(torch.zeros_like(theta), theta)},
    }


def make_engine(name: str, ranks: int, smoke: bool) -> Any:
    """An engine with the settings of this study."""
    if name == "svi":
        steps = {"steps": 400 if smoke else 5000, "learning_rate": 0.05 if smoke else 0.02}
        return DataParallelSVI(**steps) if ranks > 1 else SVI(**steps)
    found = getattr(probkit.infer, ENGINES[name], None)
    if found is None:
        raise SystemExit(f"This version of probkit has no engine {ENGINES[name]}.")
    if ranks > 1:
        raise SystemExit(f"Only svi shares its work among processes; run {name} without torchrun.")
    if name == "laplace":
        return found()
    draws = {"num_samples": 50, "num_warmup": 50} if smoke else {}
    return found(**draws, num_chains=4) if name == "hmc" and smoke else found(**draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", choices=list(ENGINES), default="svi")
    parser.add_argument("--data", type=Path, help="a CSV file; default: simulated")
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="small and quick")
    options = parser.parse_args()
    theta = None
    if options.data is not None:
        data = read(options.data)
    else:
        data, theta = simulate(40 if options.smoke else 1000, 5, options.seed)
    with process_group() as ranks:
        engine = make_engine(options.engine, ranks.size, options.smoke)
        checkpoint = None if options.out is None else options.out / f"checkpoint_{options.engine}"
        result = probkit.fit(
            model,
            data,
            engine=engine,
            seed=options.seed,
            checkpoint=checkpoint,
            resume=True,
            progress=not options.smoke,
        )
        if not ranks.first:
            return
    out = options.out or Path(tempfile.mkdtemp(prefix="hierarchical_"))
    write(result, data, theta, out)


def write(result: FitResult, data: dict[str, Any], theta: Tensor | None, out: Path) -> None:
    """Posterior, history and report; the groups' effects are scored where the truth is known."""
    result.save(out / "posterior")
    plot_history(result.history, out / "history.png")
    sizes = {"rows": len(data["y"]), "groups": data["num_groups"]}
    record: dict[str, Any] = {
        "title": f"Effects of {data['num_groups']} groups by {result.provenance['engine']}",
        "data": sizes,
        "status": {"name": result.status.name, "detail": result.detail},
        "diagnostics": result.diagnostics,
        "versions": result.provenance["versions"],
        "figures": {"Objective": "history.png"},
    }
    if theta is not None:
        record["scores"] = {"effects of the groups": scores(result, data, theta)}
        for name, row in record["scores"]["effects of the groups"].items():
            print(f"{name:12s}", *(f"{key} {value:.3f}" for key, value in row.items()))
    write_report(out, record)
    for name in ("mu", "tau", "sigma"):
        mean, sd = result.posterior.mean()[name], result.posterior.sd()[name]
        print(f"{name:12s} {float(mean):.3f} ± {float(sd):.3f}")
    print(f"{result.status.name}; report in {out}")


def _rmse(estimate: Tensor, truth: Tensor) -> float:
    return float((estimate - truth).square().mean().sqrt())


if __name__ == "__main__":
    main()
