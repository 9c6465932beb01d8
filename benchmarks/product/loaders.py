"""Every loader of probkit: how to write a sound small file, how to read it, how to spoil it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.product import mutations
from benchmarks.product.mutations import Mutation
from probkit.errors import DataError

__all__ = ["LOADERS", "Loader"]


@dataclass(frozen=True)
class Loader:
    """A kind of file.

    Attributes:
        write: makes a sound file, or a directory of files, in a folder.
        read: what a user calls; uses what it read as a first call would.
        file: the file to spoil, relative to what ``write`` returned.
        ways: mutations.
    """

    name: str
    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    ways: tuple[Mutation, ...]
    file: str = ""

    def target(self, path: Path) -> Path:
        return path / self.file if self.file else path


def _table() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    days = np.datetime64("2020-01-01") + np.arange(12)
    return {
        "site": np.array(["a", "b", "c"] * 4),
        "day": days.astype(str),
        "depth": generator.random(12).round(3),
        "y": generator.random(12).round(3),
    }


def _written_table(suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        from probkit.io import write_table

        return write_table(folder / f"table{suffix}", _table())

    return write


def _netcdf(engine: str, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import xarray as xr

        values = np.random.default_rng(0).random((3, 4))
        coordinates = {"time": np.arange(3.0), "depth": np.arange(4.0)}
        data = xr.DataArray(values, dims=("time", "depth"), coords=coordinates, name="heat")
        data.to_dataset().to_netcdf(folder / "grid.nc", engine=engine, **options)
        return folder / "grid.nc"

    return write


def _read_table(path: Path) -> Any:
    from probkit.io import read_table

    return read_table(path)


def _problem(folder: Path) -> Path:
    from probkit.sparse import simulate_recovery

    found = simulate_recovery(num_atoms=4, num_measurements=(3, 3), num_nonzero=1, seed=0)
    dictionaries = {f"A_{k + 1}": a.numpy() for k, a in enumerate(found.dictionaries)}
    np.savez(folder / "problem.npz", y=found.y.numpy(), noise=np.array(0.1), **dictionaries)
    return folder / "problem.npz"


def _read_problem(path: Path) -> Any:
    from probkit.sparse import KroneckerSBL
    from probkit.sparse.study import read_problem

    problem = read_problem(path)
    model = KroneckerSBL("svd", noise=problem.noise or "learn", max_steps=2)
    return model.recover(problem.y, problem.dictionaries)


def _release(make: Callable[[], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        from probkit.privacy import PrivacyAccountant

        sketch = make()
        generator = torch.Generator().manual_seed(0)
        dim = sketch.design.dim
        sketch.update(torch.rand(50, dim, generator=generator, dtype=torch.float64))
        return sketch.release(
            PrivacyAccountant(epsilon=1.0, relation=sketch.relation), testing_seed=0
        ).save(folder / "release")

    return write


def _kde(**settings: Any) -> Any:
    from probkit.similarity import PrivateKDE

    return PrivateKDE(2, **{"bandwidth": 0.5, "num_features": 8, "seed": 0, **settings})


def _tree() -> Any:
    from probkit.similarity import PrivateDistance

    return PrivateDistance(2, method="tree", bounds=(0.0, 1.0), height=4)


def _distance(**settings: Any) -> Any:
    from probkit.similarity import PrivateDistance

    return PrivateDistance(2, **settings)


def _read_release(path: Path) -> Any:
    from probkit.similarity import Release

    release = Release.load(path)
    return release.describe()


def _ledger(folder: Path) -> Path:
    from probkit.privacy import PrivacyAccountant

    accountant = PrivacyAccountant(epsilon=2.0, delta=1e-6, relation="replace")
    accountant.reserve("histogram", "0.01").commit()
    return accountant.save(folder / "ledger.json")


def _read_ledger(path: Path) -> Any:
    from probkit.privacy import PrivacyAccountant

    return repr(PrivacyAccountant.load(path))


def _report(folder: Path) -> Path:
    from probkit.report import write_report

    record = {
        "title": "A run",
        "data": {"entries": 12, "target": "y"},
        "held_out": {"random": "a tenth"},
        "scores": {"random": {"model": {"rmse": 0.1}, "mean": {"rmse": 1.0}}},
        "status": {"name": "CONVERGED", "message": "fine", "remedy": "", "detail": ""},
        "ranks": [2, 3],
        "diagnostics": {"khat": 0.2, "warnings": ["none"]},
        "versions": {"torch": "2"},
        "figures": {"map": "map.png"},
    }
    return write_report(folder / "run", record).parent


def _read_report(path: Path) -> Any:
    from probkit.cli.runs import report

    return list(report(path))


def _bounds(folder: Path) -> Path:
    path = folder / "bounds.json"
    path.write_text(json.dumps({"a": [0.0, 1.0], "b": [-1.0, 2.0]}), encoding="utf-8")
    return path


def _read_bounds(path: Path) -> Any:
    from probkit.similarity.study import parse_bounds

    return parse_bounds(str(path))


@cache
def _results() -> dict[str, Any]:
    """One small result of each registered posterior that a family makes quickly."""
    import pyro
    import pyro.distributions as dist

    import probkit
    from probkit.fractional import HurstModel
    from probkit.infer import MAP, SVI
    from probkit.pde import GPSolver
    from probkit.pde.study import load_problem
    from probkit.sparse import KroneckerSBL, simulate_recovery
    from probkit.tensor import FunctionalTucker

    y = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model() -> None:
        mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 2.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = simulate_recovery(num_atoms=4, num_measurements=(3, 3), num_nonzero=1, seed=0)
    few = SVI(steps=30, window=10, num_posterior_samples=20, num_diagnostic_samples=10)
    tucker = FunctionalTucker(1, num_starts=1, calibrate=False, engine=probkit.infer.CAVI(3))
    poisson, _ = load_problem("poisson_sin100", 20)
    return {
        "guide": probkit.fit(model, engine=few, seed=0),
        "point": probkit.fit(model, engine=MAP(), seed=0),
        "draws": HurstModel("levels", num_samples=20, grid_size=11).fit(y.cumsum(0)).result_,
        "sparse": KroneckerSBL("svd").fit(problem.y, problem.dictionaries).result_,
        "tucker": tucker.fit(x, x.sum(1)).result_,
        "harmonic": GPSolver().solve(poisson).result,
    }


def _saved(kind: str) -> Callable[[Path], Path]:
    return lambda folder: _results()[kind].save(folder / "saved")


def _read_result(path: Path) -> Any:
    from probkit import FitResult

    result = FitResult.load(path)
    return repr(result.verdict), result.posterior.spec()


def _checkpoint(folder: Path) -> Path:
    from probkit.infer.checkpoint import Checkpoint, Checkpointer

    state = {"x": torch.arange(3.0), "param.loc": torch.ones(2, dtype=torch.float64)}
    history = {"objective": [0.0, 1.0], "segment": [0.0, 0.0], "converged": [0.0, 0.0]}
    history["seconds"] = [0.1, 0.2]
    generator_state = torch.Generator().manual_seed(1).get_state()
    Checkpointer(folder, "digest").write(Checkpoint(state, generator_state, 2, history))
    return folder


def _read_checkpoint(path: Path) -> Any:
    from probkit.infer.checkpoint import Checkpointer
    from probkit.infer.loop import run_loop
    from probkit.infer.protocols import StepInfo

    return run_loop(
        lambda state, generator: (state, StepInfo(objective=0.0)),
        lambda generator: {"x": torch.zeros(3)},
        max_steps=4,
        generator=torch.Generator(),
        checkpointer=Checkpointer(path, "digest"),
        resume=True,
    )


def _every() -> dict[str, Loader]:
    raw = (mutations.flat_bytes,)
    text = (mutations.flat_bytes, mutations.json_text)
    binary = (mutations.flat_bytes, mutations.tensors)
    found = [
        Loader("csv", _written_table(".csv"), _read_table, (*raw, mutations.cells)),
        Loader("parquet", _written_table(".parquet"), _read_table, raw),
        Loader("netcdf4", _netcdf("h5netcdf"), _read_table, raw),
        Loader("netcdf3", _netcdf("scipy", format="NETCDF3_64BIT"), _read_table, raw),
        Loader("npz", _problem, _read_problem, (*raw, mutations.arrays)),
        Loader("ledger", _ledger, _read_ledger, text),
        Loader("report", _report, _read_report, text, "report.json"),
        Loader("bounds", _bounds, _read_bounds, text),
        Loader("checkpoint", _checkpoint, _read_checkpoint, binary, "checkpoint.safetensors"),
    ]
    releases: dict[str, Callable[[], Any]] = {
        "features": lambda: _kde(method="features"),
        "structured": lambda: _kde(method="features", projection="structured"),
        "grid": lambda: _kde(method="grid", bounds=(0.0, 1.0)),
        "exponentials": lambda: _kde(kernel="inverse", method="exponentials", num_features=200),
        "tree": _tree,
        "l1": lambda: _distance(bounds=(0.0, 1.0), num_cells=16),
        "l2": lambda: _distance(metric="l2", radius=2.0, num_directions=8, num_cells=8),
        "l2sq": lambda: _distance(metric="l2sq", radius=2.0),
    }
    for name, make in releases.items():
        found.append(Loader(f"release {name}", _release(make), _read_release, binary))
    for kind in ("guide", "point", "draws", "sparse", "tucker", "harmonic"):
        write = _saved(kind)
        found.append(Loader(f"manifest {kind}", write, _read_result, text, "manifest.json"))
        found.append(Loader(f"state {kind}", write, _read_result, binary, "state.safetensors"))
    return {loader.name: loader for loader in found}


LOADERS = _every()

# what a mutation may end in; anything else is a fault
assert issubclass(DataError, Exception)
