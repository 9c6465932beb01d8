"""One step of F1-F7: ``python -m benchmarks.tensor.reliability_job KIND FOLDER`` prints JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from probkit.infer import CAVI, Status, StepInfo
from probkit.tensor import FunctionalTucker
from probkit.tensor.simulate import simulate_functional_tucker
from probkit.tensor.variational import TuckerVariational

_SWEEPS = 40
_BAD_SWEEP = 15


def main(kind: str, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    return _JOBS[kind](folder)


def _estimator(seed: int = 0) -> FunctionalTucker:
    engine = CAVI(max_sweeps=_SWEEPS, tolerance=1e-15)
    return FunctionalTucker(rank=2, structure="cp", likelihood="gaussian", engine=engine, seed=seed)


def _data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    data = simulate_functional_tucker(2000, generator=seed)
    return data.x, data.y


def _points() -> torch.Tensor:
    return torch.rand(50, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def _report(model: FunctionalTucker) -> dict[str, Any]:
    predictions, result = torch.as_tensor(model.predict(_points())), model.result_
    return {
        "predictions": predictions.tolist(),
        "status": result.status.name,
        "finite": bool(torch.isfinite(predictions).all()),
        "sweeps": len(result.history["objective"]),
    }


def _whole(folder: Path) -> dict[str, Any]:
    return _report(_estimator().fit(*_data()))


class _Announce:
    """Announces the middle of a fit by a file and then goes on slowly, so that a signal hits."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def start(self, max_steps: int, step: int) -> None:
        """Nothing to announce yet."""

    def step(self, step: int, state: dict[str, torch.Tensor], info: StepInfo) -> None:
        if step == _SWEEPS // 2:
            self.file.touch()
        if step >= _SWEEPS // 2:
            time.sleep(0.2)

    def finish(self, status: Status) -> None:
        """Nothing left to announce."""


def _interrupted(folder: Path) -> dict[str, Any]:
    model = _estimator()
    announce = _Announce(folder / "half-way")
    model.fit(*_data(), callbacks=[announce], checkpoint=folder / "checkpoint")
    return _report(model)


def _resumed(folder: Path) -> dict[str, Any]:
    return _report(_estimator().fit(*_data(), checkpoint=folder / "checkpoint", resume=True))


def _non_finite(folder: Path) -> dict[str, Any]:
    """A sweep whose objective is NaN; the state before it must be what is returned."""
    sound, calls = TuckerVariational.sweep, 0

    def sweep(self: TuckerVariational, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        state, objective = sound(self, *arguments)
        return state, objective * (float("nan") if calls == _BAD_SWEEP else 1.0)

    with mock.patch.object(TuckerVariational, "sweep", sweep):
        report = _report(_estimator().fit(*_data()))
    return report | {"bad_sweep": _BAD_SWEEP, "calls": calls}


def _save(folder: Path) -> dict[str, Any]:
    model = _estimator().fit(*_data())
    model.save(folder / "result")
    return _report(model)


def _load(folder: Path) -> dict[str, Any]:
    return _report(FunctionalTucker.load(folder / "result"))


def _arviz(folder: Path) -> dict[str, Any]:
    import arviz

    tree = arviz.from_netcdf(folder / "result" / "posterior.nc")
    return {"rows": len(arviz.summary(tree))}


def _pair(folder: Path) -> dict[str, Any]:
    import pyro

    _estimator(seed=5).fit(*_data(seed=3))
    report = _report(_estimator().fit(*_data()))
    return report | {"store": len(pyro.get_param_store().keys())}


_JOBS = {
    "whole": _whole,
    "interrupted": _interrupted,
    "resumed": _resumed,
    "non_finite": _non_finite,
    "save": _save,
    "load": _load,
    "arviz": _arviz,
    "pair": _pair,
}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
