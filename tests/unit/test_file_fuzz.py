"""Files from anywhere: a typed error or a result, never another exception, never code executed.

A few spoiled files a loader; ``python -m benchmarks.run product --only X1`` reads 1 000 of each.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import probkit
from benchmarks.product import mutations
from benchmarks.product.fuzzing import faults
from benchmarks.product.loaders import LOADERS
from probkit.errors import CheckpointError, DataError, ProbkitError
from probkit.infer.checkpoint import Checkpointer
from probkit.io import read_table
from probkit.sparse.study import read_problem

# found failing once: a nested JSON text, another dtype, an empty array, one column, an odd section
SEEDS = {"release": range(18, 28), "npz": range(4, 12), "csv": range(198, 204)}


def seeds_of(name):
    return next((seeds for start, seeds in SEEDS.items() if name.startswith(start)), range(6))


@pytest.mark.parametrize("name", LOADERS)
def test_spoiled_files_end_in_typed_errors(name):
    assert list(faults(LOADERS[name], seeds_of(name))) == []


@pytest.mark.parametrize("name", LOADERS)
def test_a_pickle_in_the_place_of_a_file_is_not_executed(name, tmp_path):
    loader, sign = LOADERS[name], tmp_path / "executed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = loader.write(tmp_path)
        loader.target(path).write_bytes(mutations.payload(sign))
        with pytest.raises(ProbkitError):
            loader.read(path)
    assert not sign.exists()


def test_the_payload_itself_works(tmp_path):
    import pickle

    pickle.loads(mutations.payload(tmp_path / "executed"))
    assert (tmp_path / "executed").exists()


def test_a_pickled_array_in_an_npz_file_is_not_executed(tmp_path):
    path, sign = LOADERS["npz"].write(tmp_path), tmp_path / "executed"
    path.write_bytes(mutations.pickled_array(path.read_bytes(), mutations.payload(sign)))
    with pytest.raises(DataError, match="plain arrays"):
        read_problem(path)
    assert not sign.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "probkit", "probkit..x", "probkit.", "builtins.exec"]
)
def test_a_manifest_cannot_name_any_class(name, tmp_path):
    path = LOADERS["manifest point"].write(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "class": name}))
    with pytest.raises(CheckpointError, match="class that is not known"):
        probkit.FitResult.load(path)


def test_altered_numbers_of_a_result_are_noticed(tmp_path):
    path = LOADERS["state draws"].write(tmp_path)
    tensors = load_file(path / "state.safetensors")
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1e-3}, path / "state.safetensors")
    with pytest.raises(CheckpointError, match="not those that were saved"):
        probkit.FitResult.load(path)


def test_results_of_earlier_versions_have_no_digest_and_load(tmp_path):
    path = LOADERS["manifest draws"].write(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["state_sha256"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert probkit.FitResult.load(path).status is probkit.Status.CONVERGED


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    path = LOADERS["checkpoint"].write(tmp_path) / "checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="not those that were written"):
        Checkpointer(tmp_path, "digest").read()


def test_a_checkpoint_of_another_kind_of_generator_is_refused(tmp_path):
    LOADERS["checkpoint"].write(tmp_path)
    found = Checkpointer(tmp_path, "digest").read()
    found.generator_state = torch.zeros(16, dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="random state"):
        found.restore(torch.Generator())


def test_a_table_of_targets_alone_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text("y\n1\n2\n")
        with pytest.raises(DataError, match="no coordinates"):
            read_table(path)
