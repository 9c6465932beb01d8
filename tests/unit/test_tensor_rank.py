"""The number of components is found, and what ends the search."""

import torch

from probkit.random import as_generator
from probkit.tensor import FunctionalTucker
from probkit.tensor.program import _clearly_better
from probkit.tensor.simulate import simulate_functional_tucker


def test_the_number_of_components_is_found_and_predicts_as_the_true_one():
    data = simulate_functional_tucker(
        700,
        num_coordinates=(10, 9, 8),
        rank=2,
        nu=1.5,
        noise=0.1,
        noise_is_relative=True,
        generator=4,
    )
    train = torch.arange(700) < 600
    errors, found = {}, {}
    for rank in ("auto", 2):
        model = FunctionalTucker(
            rank=rank, max_rank=3, structure="cp", kernels="matern32", num_starts=1, seed=0
        ).fit(data.x[train], data.y[train])
        mean = model.predict(data.x[~train])
        errors[rank] = float((mean - data.f[~train]).square().mean().sqrt())
        found[rank] = model.result_.diagnostics["ranks"]
    assert found["auto"] == [2, 2, 2]
    assert errors["auto"] < 1.05 * errors[2]


def test_a_loss_counts_only_beyond_chance_and_beyond_what_sweeps_are_judged_to():
    noise = torch.randn(1000, generator=as_generator(0), dtype=torch.float64)
    scores = torch.zeros_like(noise)
    assert _clearly_better(scores + 0.2, scores + 0.5 * noise, 1e-4)
    assert not _clearly_better(scores + 0.01, scores + 0.5 * noise, 1e-4)  # chance
    assert not _clearly_better(scores + 1e-5, scores + 1e-7 * noise, 1e-4)  # nothing, everywhere
    assert _clearly_better(scores + 1e-3, scores + 1e-7 * noise, 1e-4)
