"""The digest of a model's data tells different data apart, and finds the same data again."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import probkit
from probkit.errors import CheckpointError
from probkit.infer.provenance import data_digest
from probkit.infer.pyro_data import ModelArguments


def digest(data):
    return ModelArguments.of(data).digest()


def test_numbers_in_the_middle_of_long_arrays_count():
    long = np.zeros(3000)
    other = long.copy()
    other[1500] = 1.0
    for wrap in (np.asarray, list, pd.Series, lambda a: pd.DataFrame({"a": a, "b": "text"})):
        assert digest({"y": wrap(long)}) == digest({"y": wrap(long)})
        assert digest({"y": wrap(long)}) != digest({"y": wrap(other)})
    assert digest({"y": [{"deep": long}]}) != digest({"y": [{"deep": other}]})


def test_names_shapes_and_containers_count():
    a, b = torch.zeros(2), torch.ones(2)
    assert digest({"a": a, "b": b}) == digest({"b": b, "a": a})
    assert digest({"a": a, "b": b}) != digest({"x": a, "y": b})
    assert digest((np.zeros((2, 3)),)) != digest((np.zeros((3, 2)),))
    assert digest(([a], b)) != digest((a, [b]))
    assert digest((np.zeros(0), 1)) != digest((1, np.zeros(0)))


def test_an_objects_address_does_not_count():
    class Option:
        pass

    assert digest((Option(),)) == digest((Option(),))


def test_views_are_digested_as_their_numbers():
    z = torch.randn(3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    assert data_digest(z.conj()) == data_digest(z.conj().resolve_conj()) != data_digest(z)
    assert data_digest(z.conj().imag) == data_digest(z.conj().imag.clone())


def test_arrays_with_other_numbers_do_not_resume_a_checkpoint(tmp_path):
    def model(y):
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=torch.float64), 10.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.as_tensor(y))

    first = np.zeros(3000)
    other = first.copy()
    other[100:-100] = 50.0
    engine = probkit.SVI(steps=20, compile="off")
    probkit.fit(model, {"y": first}, engine=engine, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="another fit"):
        probkit.fit(model, {"y": other}, engine=engine, checkpoint=tmp_path, resume=True)
