"""What every estimator promises, for ``KroneckerSBL``: save, load, resume, interrupt, pickle."""

import pickle

import numpy as np
import pytest
import torch

from probkit.errors import CheckpointError, FitWarning
from probkit.infer import DrawsPosterior, FitResult, Status
from probkit.sparse import METHODS, KroneckerSBL, simulate_recovery

P = simulate_recovery(num_atoms=8, num_measurements=(5, 6), is_complex=True, seed=1)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_saves_and_loads(method, tmp_path):
    model = KroneckerSBL(method)
    found = model.recover(P.y, P.dictionaries)
    model.save(tmp_path / "fit")
    again = KroneckerSBL.load(tmp_path / "fit")
    assert torch.equal(again.mean, found.mean)
    assert torch.equal(again.support, found.support)
    assert torch.equal(again.predict(), found.predict())
    torch.testing.assert_close(again.sd, found.sd)
    assert found.mean.shape == found.probability.shape == P.x.shape
    assert found.predict().shape == P.y.shape
    assert again.result.status is found.result.status


def test_resume_equals_the_uninterrupted_fit(tmp_path):
    starts = ("svd", "flat")
    whole = KroneckerSBL(starts=starts).recover(P.y, P.dictionaries)
    with pytest.warns(FitWarning, match="60 sweeps"):
        KroneckerSBL(starts=starts, max_steps=60).fit(P.y, P.dictionaries, checkpoint=tmp_path)
    model = KroneckerSBL(starts=starts)
    resumed = model.recover(P.y, P.dictionaries, checkpoint=tmp_path, resume=True)
    assert torch.equal(resumed.mean, whole.mean)
    counts = [len(r.result.history["objective"]) for r in (whole, resumed)]
    assert counts[0] == counts[1]


def test_interrupt_leaves_a_usable_result():
    class Interrupt:
        def start(self, max_steps, step): ...

        def step(self, step, state, info):
            if step == 5:
                raise KeyboardInterrupt

        def finish(self, status): ...

    found = KroneckerSBL().recover(P.y, P.dictionaries, callbacks=[Interrupt()])
    assert found.result.status is Status.INTERRUPTED
    assert bool(torch.isfinite(found.mean).all())


def test_estimator_pickles():
    model = pickle.loads(pickle.dumps(KroneckerSBL("svd").fit(P.y, P.dictionaries)))
    assert model.predict().shape == P.y.shape


def test_two_fits_do_not_interact():
    first = KroneckerSBL(starts=("flat",)).recover(P.y, P.dictionaries)
    KroneckerSBL("am").recover(2 * P.y, P.dictionaries)
    second = KroneckerSBL(starts=("flat",)).recover(P.y, P.dictionaries)
    assert torch.equal(first.mean, second.mean)


def test_draws_of_complex_coefficients_go_to_a_data_tree():
    found = KroneckerSBL("svd").recover(P.y, P.dictionaries)
    tree = found.result.to_datatree()
    assert tree["posterior"]["x_real"].shape == (1, 200, 8, 8)


def test_a_result_of_another_model_is_refused_when_loaded(tmp_path):
    posterior = DrawsPosterior({"x": torch.zeros(1, 2)})
    FitResult(Status.CONVERGED, posterior, {"objective": np.zeros(1)}).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"DrawsPosterior, expected SparsePosterior"):
        KroneckerSBL.load(tmp_path)
