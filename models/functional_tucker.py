"""Study: a table with continuous coordinates becomes a surface with error bars.

    python models/functional_tucker.py --data sst --out results     # sea-surface temperature
    python models/functional_tucker.py --data mine.csv --out results
    python models/functional_tucker.py --smoke                      # simulated, under a minute

The model is written out below. ``FunctionalTucker`` fits it by exact coordinate updates and chooses
the ranks; ``probkit.tensor.model`` has it with all likelihoods, and ``SVI(guide=MarkovGuide(...))``
fits it by minibatches. Fang et al., ICLR 2024, arXiv 2311.04829.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from probkit.distributions import MarkovGaussianProcess
from probkit.infer import pyro_seed
from probkit.io import write_table
from probkit.kernels import kernel_from_name
from probkit.tensor.study import Study


def model(index: Tensor, y: Tensor | None, grids: list[Tensor], ranks: list[int]) -> Tensor:
    """y_n = b + sum_g W_g prod_k u^k_{g_k}(x_nk) + noise, a Gaussian process for every u^k_r."""
    like = grids[0]
    core = pyro.sample("core", dist.Normal(like.new_zeros(ranks), 1.0).to_event(len(ranks)))
    f = core
    for k, (grid, rank) in enumerate(zip(grids, ranks, strict=True)):
        kernel = kernel_from_name("matern32", num_components=rank, dtype=grid.dtype)
        with pyro.plate(f"components_{k}", rank):
            factor = pyro.sample(f"factor_{k}", MarkovGaussianProcess(kernel, grid))
        rows = factor[:, index[:, k]].mT  # (N, R_k)
        if k == 0:
            f = torch.tensordot(rows, f, dims=1)  # (N, R_2, ..., R_K)
        else:
            f = (f * rows.reshape(*rows.shape, *[1] * (f.dim() - 2))).sum(1)
    f = f + pyro.sample("intercept", dist.Normal(like.new_zeros(()), 10.0))
    tau = pyro.sample("tau", dist.Gamma(like.new_tensor(20.0), 0.5))
    with pyro.plate("entries", len(index)):
        return pyro.sample("y", dist.Normal(f, tau.rsqrt()), obs=y)


def simulate(path: Path, seed: int) -> Path:
    """A table drawn from the model: 900 entries over hour, depth and distance."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [24, 10, 12]
    grids = [torch.linspace(0, 1, size, dtype=torch.float64) for size in sizes]
    index = torch.stack([torch.randint(0, d, (900,), generator=generator) for d in sizes], 1)
    with torch.no_grad(), pyro_seed(seed):
        y = model(index, None, grids, [2, 2, 2])
    units = {"hour": 23.0, "depth": 90.0, "distance": 5.5}
    columns = {
        name: (scale * grids[k][index[:, k]]).numpy()
        for k, (name, scale) in enumerate(units.items())
    }
    return write_table(path, columns | {"signal": y.numpy()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="a bundled data set's name or a table file; default sst")
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="small, quick, on simulated data")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="functional_tucker_"))
    out.mkdir(parents=True, exist_ok=True)

    data = options.data or "sst"
    if options.smoke and options.data is None:
        data = str(simulate(out / "simulated.csv", options.seed))
    study = Study(
        data=data,
        out=out / "study",
        kernel="matern32",
        max_rank=2 if options.smoke else 8,
        seed=options.seed,
        progress=not options.smoke,
    )
    for line in study.run():
        print(line)


if __name__ == "__main__":
    main()
