"""Study: sparse recovery with a Kronecker dictionary, all methods, as in the paper's sweeps.

    python models/kronecker_recovery.py --sweep snr --out results         # 5 to 30 dB
    python models/kronecker_recovery.py --sweep all --seeds 20            # all three sweeps
    python models/kronecker_recovery.py --sweep snr --engine svi          # the Pyro model as well
    python models/kronecker_recovery.py --smoke                           # small, under a minute

Error (NMSE), support recovery and CPU time of every method against the SNR, the first factor's
number of measurements and the number of non-zeros, with bands. "evidence" is the default of
``KroneckerSBL``; am, svd and ksbl are the paper's methods (He & Joseph, IEEE TSP 2024, arXiv
2307.14719); the oracle knows the support. The model is written out below, and ``--engine`` fits it
by one of the shared engines beside the structured solver. ``--methods`` may add "classic", which
forms the dense dictionary and takes a minute for a problem of full size.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from probkit.distributions import KroneckerSparseNormal
from probkit.infer import NUTS, SVI
from probkit.infer.provenance import versions
from probkit.report import write_report
from probkit.sparse import nmse, simulate_recovery, support_recovery
from probkit.sparse.comparison import Sweep, estimate, timed

SWEEPS: dict[str, tuple[str, list[float]]] = {
    "snr": ("SNR (dB)", [5, 10, 15, 20, 25, 30]),
    "measurements": ("measurements M1", [6, 8, 10, 12, 14]),
    "sparsity": ("non-zeros K", [2, 3, 4, 5, 6]),
}
METHODS = ["evidence", "am", "svd", "ksbl", "kronecker_omp", "oracle"]
_DRAWS = 50


def model(y: Tensor, dictionaries: list[Tensor], noise: float) -> None:
    """y = (A_1 x ... x A_I) x + e; x ~ N(0, diag(g_1 x ... x g_I)) is integrated out exactly."""
    scales = []
    for k, a in enumerate(dictionaries):
        centre = y.new_full((a.shape[-1],), -3.0)
        # wide on the log scale: most slices may go to nothing
        log_scale = pyro.sample(f"log_scale_{k}", dist.Normal(centre, 4.0).to_event(1))
        scales.append(log_scale.exp())
    law = KroneckerSparseNormal(dictionaries, scales, y.new_tensor(noise))
    pyro.sample("y", law, obs=y)


def engine_mean(
    name: str, y: Tensor, dictionaries: list[Tensor], noise: float, smoke: bool
) -> Tensor:
    """Posterior mean of x from an engine's draws of the scales."""
    engine: Any = SVI(steps=300 if smoke else 1500, learning_rate=0.03)
    if name == "nuts":
        few = {"num_samples": 30, "num_warmup": 30} if smoke else {}
        engine = NUTS(**few)
    result = engine.fit(model, (y, dictionaries, noise), seed=0)
    draws = result.posterior.sample(_DRAWS, torch.Generator().manual_seed(0))
    scales = [draws[f"log_scale_{k}"].exp() for k in range(len(dictionaries))]
    law = KroneckerSparseNormal(dictionaries, scales, y.new_tensor(noise).expand(_DRAWS))
    return law.posterior(y).mean.mean(0)


def make_trial(
    sweep: str, structure: str, engines: dict[str, Callable[..., Tensor]], smoke: bool
) -> Callable[[str, float, int], dict[str, float]]:
    """One method on one simulated problem."""

    def trial(method: str, value: float, seed: int) -> dict[str, float]:
        rows = [8, 12, 15] if not smoke else [5, 6, 7]
        settings: dict[str, Any] = {"snr_db": 25.0, "num_nonzero": 3 if not smoke else 2}
        if sweep == "snr":
            settings["snr_db"] = value
        elif sweep == "measurements":
            rows[0] = int(value)
        else:
            settings["num_nonzero"] = int(value)
        p = simulate_recovery(
            num_atoms=15 if not smoke else 8,
            num_measurements=rows,
            structure=structure,
            seed=seed,
            **settings,
        )

        def solve() -> Tensor:
            if method in engines:
                return engines[method](p.y, p.dictionaries, p.noise)
            known = {"num_nonzero": settings["num_nonzero"], "truth": p.x}
            return estimate(method, p.y, p.dictionaries, noise=p.noise, **known)

        x, seconds = timed(solve)
        rate = support_recovery(x, p.x)
        return {"nmse": nmse(x, p.x), "support_recovery": rate, "seconds": seconds}

    return trial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sweep", choices=[*SWEEPS, "all"], default="snr")
    parser.add_argument("--structure", choices=["rank1", "free"], default="rank1")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    parser.add_argument("--engine", choices=["structured", "svi", "nuts"], default="structured")
    parser.add_argument("--seeds", type=int, default=10, help="problems for each point")
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0, help="of the first problem")
    parser.add_argument("--smoke", action="store_true", help="small and quick")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="kronecker_recovery_"))
    methods = options.methods.split(",")
    engines: dict[str, Callable[..., Tensor]] = {}
    if options.engine != "structured":
        engines[options.engine] = partial(engine_mean, options.engine, smoke=options.smoke)
        methods.append(options.engine)

    record: dict[str, Any] = {
        "title": "Sparse recovery with a Kronecker dictionary",
        "data": {"x": options.structure, "problems for each point": options.seeds},
        "scores": {},
        "figures": {},
        "versions": versions(),
    }
    for name in SWEEPS if options.sweep == "all" else [options.sweep]:
        label, values = SWEEPS[name]
        seeds = range(options.seed, options.seed + (2 if options.smoke else options.seeds))
        values = values[2:3] if options.smoke else values
        trial = make_trial(name, options.structure, engines, options.smoke)
        sweep = Sweep(label, values, methods, seeds, trial)
        for line in sweep.run():
            print(line, flush=True)
        sweep.write_table(out / f"{name}.csv")
        record["scores"] |= sweep.scores()
        figures = sweep.draw(out / "figures", ("nmse", "seconds"))
        record["figures"] |= {caption: f"figures/{file}" for caption, file in figures.items()}
    print(f"report: {write_report(out, record)}")


if __name__ == "__main__":
    main()
