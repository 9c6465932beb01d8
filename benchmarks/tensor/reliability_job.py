"""One step of F1-F7: ``python -m benchmarks.tensor.reliability_job KIND FOLDER`` prints JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from probkit.infer import CAVI, FitResult
from probkit.tensor import FunctionalTucker
from probkit.tensor.simulate import simulate_functional_tucker

_SWEEPS = 40


def main(kind: str, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    return _JOBS[kind](folder)


def _estimator(seed: int = 0, **settings: Any) -> FunctionalTucker:
    engine = CAVI(max_sweeps=_SWEEPS, tolerance=0.0)
    return FunctionalTucker(
        rank=2, structure="cp", likelihood="gaussian", engine=engine, seed=seed, **settings
    )


def _data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    data = simulate_functional_tucker(2000, generator=seed)
    return data.x, data.y


def _points() -> torch.Tensor:
    return torch.rand(50, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def _report(model: Any) -> dict[str, Any]:
    predictions = torch.as_tensor(model.predict(_points()))
    result = model if isinstance(model, FitResult) else model.result_
    return {
        "predictions": predictions.tolist(),
        "status": result.status.name,
        "finite": bool(torch.isfinite(predictions).all()),
        "sweeps": len(result.history),
    }


def _whole(folder: Path) -> dict[str, Any]:
    return _report(_estimator().fit(*_data()))


def _interrupted(folder: Path) -> dict[str, Any]:
    """Fit with a checkpoint every sweep; announce the middle and then go on slowly."""

    def announce(event: Any) -> None:
        if event.step == _SWEEPS // 2:
            (folder / "half-way").touch()
        if event.step >= _SWEEPS // 2:
            time.sleep(0.2)

    model = _estimator()
    model.fit(*_data(), callbacks=[announce], checkpoint=folder / "checkpoint")
    return _report(model)


def _resumed(folder: Path) -> dict[str, Any]:
    return _report(_estimator().fit(*_data(), checkpoint=folder / "checkpoint"))


def _save(folder: Path) -> dict[str, Any]:
    model = _estimator().fit(*_data())
    model.result_.save(folder / "result")
    return _report(model)


def _load(folder: Path) -> dict[str, Any]:
    return _report(FitResult.load(folder / "result"))


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
    "save": _save,
    "load": _load,
    "arviz": _arviz,
    "pair": _pair,
}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
