"""D12, D14, D16 and D20: audits, merging, files."""

from __future__ import annotations

import json
import math
import pickle
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.frame import Context, Line, row
from benchmarks.similarity.distances import uniform
from probkit.privacy import (
    Budget,
    BudgetExceededError,
    PrivacyAccountant,
    ReleaseFileError,
    distinguishing_audit,
    gradient_audit,
    plan_noise,
)
from probkit.similarity import ClassSketch, PrivateDistance, PrivateKDE, Release, Sketch
from probkit.similarity.auditing import audit_sketch
from probkit.similarity.grid_kde import cubic_spline

PURE, ZCDP = Budget("pure", Fraction(1)), Budget("zcdp", Fraction(1, 2))
Pair = tuple[Callable[[], Sketch], Tensor, Tensor]


def waves(relation: str) -> Pair:
    """Two waves whose signs both turn between the two data sets."""

    def make() -> Sketch:
        return PrivateKDE(2, bandwidth=1.0, num_features=2, seed=1, relation=relation)

    base = torch.zeros(2, 2, dtype=torch.float64)
    if relation == "add_remove":
        return make, base, torch.cat([base, base[:1]])
    frequencies = PrivateKDE(2, bandwidth=1.0, num_features=2, seed=1).design.waves.frequencies
    half_turn = torch.full((2, 1), math.pi, dtype=torch.float64)
    other = base.clone()
    other[1] = torch.linalg.solve(frequencies, half_turn)[:, 0]
    return make, base, other


def neighbours(relation: str, dim: int, value: float) -> tuple[Tensor, Tensor]:
    x = torch.zeros(3, dim, dtype=torch.float64)
    if relation == "add_remove":
        return x, torch.cat([x, torch.full((1, dim), value, dtype=torch.float64)])
    y = x.clone()
    y[2] = value
    return x, y


def mechanisms(relation: str) -> dict[str, Pair]:
    """Every public structure, small enough that its audit is sharp."""
    common = {"relation": relation}
    line = neighbours(relation, 1, 1.0)
    return {
        "l1": (lambda: PrivateDistance(1, bounds=(0, 1), num_cells=4, **common), *line),
        "lp": (
            lambda: PrivateDistance(1, "lp", power=2, bounds=(0, 1), num_cells=4, **common),
            *line,
        ),
        "tree": (
            lambda: PrivateDistance(1, method="tree", height=2, bounds=(0, 1), **common),
            *line,
        ),
        "l2": (
            lambda: PrivateDistance(1, "l2", radius=1.0, num_directions=2, num_cells=4, **common),
            *line,
        ),
        "l2sq": (lambda: PrivateDistance(1, "l2sq", radius=1.0, **common), *line),
        "grid": (
            lambda: PrivateKDE(1, bandwidth=0.5, method="grid", bounds=(0, 1), **common),
            *line,
        ),
        "features": waves(relation),
    }


@row("D12", "audits: correct builds pass, faults are caught")
def audits(context: Context) -> Iterator[Line]:
    runs = context.size(200_000, 10_000)
    flagged = 0
    for _ in range(context.size(20, 2)):
        make, x, y = waves("replace")
        result = audit_sketch(make, x, y, PURE, num_runs=context.size(20_000, 5000), alpha=1e-3)
        flagged += result.refutes(epsilon=1)
    yield Line("correct", "correct build flagged, of 20 runs", float(flagged))
    faults = dict(_planted(runs))
    for name, caught in faults.items():
        yield Line(f"fault_{name}", f"caught: {name}", float(caught))
    yield Line("caught", "share of planted faults caught", sum(faults.values()) / len(faults))
    generator = torch.Generator().manual_seed(0)
    frequencies = torch.randn(200, 256, generator=generator, dtype=torch.float64)

    def features(x: Tensor) -> Tensor:
        angle = frequencies @ x
        return torch.cat([angle.cos(), angle.sin()])

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randn(256, generator=generator, dtype=torch.float64)

    claim = 2 * math.sqrt(200)
    ratio = gradient_audit(features, draw, claim, relation="replace", norm=2, restarts=3)
    yield Line("gradient", "gradient attack over the claimed sensitivity", ratio)


def _planted(runs: int) -> Iterator[tuple[str, bool]]:
    """Faults of the release that a careless builder might make."""
    make, x, y = waves("replace")
    for name, budget, factor in (
        ("scale halved", PURE, 0.5),
        ("add_remove scale for replace", ZCDP, 0.5),
        ("sqrt 2 for 2", ZCDP, math.sqrt(0.5)),
    ):
        plan = make().plan(budget)
        noise = replace(plan, scale=np.floor(plan.scale * factor))
        found = audit_sketch(make, x, y, budget, noise=noise, num_runs=runs)
        claim = {"epsilon": 1.0} if budget is PURE else {"rho": 0.5}
        yield name, found.refutes(**claim)

    def classes() -> Sketch:
        return ClassSketch(1, [0, 1], bandwidth=1.0, num_features=1, seed=1)

    x = torch.zeros(3, 1, dtype=torch.float64)
    labels = (torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]))
    noise = plan_noise(classes().design.blocks("add_remove", 1), PURE)
    found = audit_sketch(classes, x, x, PURE, labels=labels, noise=noise, num_runs=runs)
    yield "forgotten change of label", found.refutes(epsilon=1)
    yield "n from the data", _data_dependent_count(runs).refutes(epsilon=1)
    knots = torch.arange(-3, 4, dtype=torch.float64)
    ratio = gradient_audit(
        lambda x: _interpolating_cubic(x - knots),
        lambda g: torch.rand(1, generator=g, dtype=torch.float64),
        1.0,
        relation="add_remove",
        norm=1,
    )
    spline = gradient_audit(
        lambda x: cubic_spline(x - knots),
        lambda g: torch.rand(1, generator=g, dtype=torch.float64),
        1.0,
        relation="add_remove",
        norm=1,
    )
    yield "interpolating cubic", ratio > 1 >= spline - 1e-9


def _data_dependent_count(runs: int):
    """A mean over a private n in [1, 2] of values in [-1, 1], with the noise of a sum over n = 2.

    {1} against {1, -1}: the mean moves by 1, the noise is for 1/2.
    """
    rng = np.random.default_rng(0)
    first = 1 + rng.laplace(scale=0.5, size=runs)
    second = rng.laplace(scale=0.5, size=runs)
    scores = [np.abs(v) - np.abs(v - 1) for v in (first, second)]
    return distinguishing_audit(scores[0], scores[1])


def _interpolating_cubic(t: Tensor) -> Tensor:
    t = t.abs()
    inner = 1.5 * t**3 - 2.5 * t**2 + 1
    outer = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return torch.where(t < 1, inner, torch.where(t < 2, outer, torch.zeros_like(t)))


@row("D16", "audited lower bound, every mechanism and relation")
def lower_bounds(context: Context) -> Iterator[Line]:
    worst = 0.0
    for relation in ("replace", "add_remove"):
        for name, (make, x, y) in mechanisms(relation).items():
            for budget in (PURE, ZCDP):
                highest = 0.0
                for _ in range(context.size(20, 2)):
                    found = audit_sketch(
                        make, x, y, budget, num_runs=context.size(5000, 1000), alpha=1e-4
                    )
                    value = found.epsilon if budget is PURE else found.rho
                    highest = max(highest, value / float(budget.amount))
                worst = max(worst, highest)
                what = f"{name}, {relation}, {budget.kind}: bound over claim, worst of 20"
                yield Line(f"{name}_{relation}_{budget.kind}", what, highest)
    yield Line("worst", "largest lower bound over its claim", worst)


@row("D14", "merging, files, one release")
def life_cycle(context: Context) -> Iterator[Line]:
    x = uniform(context.size(7000, 700), 3, 0)

    def make() -> Sketch:
        return PrivateKDE(3, bandwidth=0.5, num_features=200)

    whole = make().update(x)
    parts = [make().update(part) for part in x.split(len(x) // 7)]
    random.Random(0).shuffle(parts)
    first, *rest = parts
    for part in rest:
        first.merge(part)
    yield Line(
        "merge", "7 parts in random order: identical", float(torch.equal(first.state, whole.state))
    )
    accountant = PrivacyAccountant(epsilon=1, delta=1e-6)
    release = whole.release(accountant)
    with tempfile.TemporaryDirectory() as folder:
        path = release.save(Path(folder) / "release")
        same = torch.equal(Release.load(path).query(x[:50]).value, release.query(x[:50]).value)
        stored = load_file(path)
    yield Line("file", "saved, loaded, queried: identical", float(same))
    raw = any(v.shape == first.state.shape and torch.equal(v, first.state) for v in stored.values())
    yield Line("raw", "raw counts in the file", float(raw))
    before = accountant.ledger
    try:
        first.release(accountant)
        refused = False
    except BudgetExceededError:
        refused = accountant.ledger == before
    yield Line("refused", "second release refused, ledger unchanged", float(refused))


@row("D20", "damaged files")
def damaged_files(context: Context) -> Iterator[Line]:
    release = PrivateDistance(2, bounds=(0, 1), num_cells=64).update(uniform(500, 2, 0))
    with tempfile.TemporaryDirectory() as folder:
        path = release.release(PrivacyAccountant(epsilon=5)).save(Path(folder) / "release")
        whole = path.read_bytes()
        rng = np.random.default_rng(0)
        damages = [b"", whole[:50], whole[: len(whole) // 2], pickle.dumps(_Mark(folder))]
        for place in rng.integers(0, len(whole), context.size(300, 20)):
            damages.append(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        typed = 0
        for damage in damages:
            path.write_bytes(damage)
            try:
                Release.load(path)
            except ReleaseFileError:
                typed += 1
        executed = (Path(folder) / "executed").exists()
        path.write_bytes(whole)
        with safe_open(str(path), "pt") as file:
            json.loads(file.metadata()["probkit"])
    yield Line(
        "typed", f"share of {len(damages)} damaged files refused by type", typed / len(damages)
    )
    yield Line("executed", "code executed by loading", float(executed))


class _Mark:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return Path.touch, (Path(self.folder) / "executed",)
