"""Every study runs as a script in its smoke setting and leaves what it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(study, folder, *arguments, launcher=()):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(ROOT / "models" / study), "--smoke", "--seed", "0"]
    command += ["--out", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    report = min(folder.rglob("report.json"), key=lambda path: len(path.parts))
    return json.loads(report.read_text(encoding="utf-8"))["scores"]


def test_every_study_has_a_test():
    names = sorted(path.name for path in (ROOT / "models").glob("*.py"))
    text = Path(__file__).read_text(encoding="utf-8")
    assert names and [name for name in names if f'run("{name}"' not in text] == []


@pytest.mark.slow
def test_functional_tucker(tmp_path):
    scores = run("functional_tucker.py", tmp_path)["random"]
    ours = scores.pop("probkit")
    # the data come from the model itself, so a fit that does not beat both baselines is broken
    assert all(ours["rmse"] < 0.5 * other["rmse"] for other in scores.values())
    assert all(ours["nll"] < other["nll"] for other in scores.values())
    for figure in ("factors.png", "elbo.png", "calibration.png"):
        assert list(tmp_path.rglob(figure))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "launcher"),
    [("svi", ()), ("svi", ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))],
    ids=["svi", "svi on two ranks"],
)
def test_hierarchical(engine, launcher, tmp_path):
    scores = run("hierarchical_svi.py", tmp_path, "--engine", engine, launcher=launcher)
    (scores,) = scores.values()
    ours = scores.pop("probkit")
    # pulled estimates beat both extremes, and intervals of 40 groups hold about nine in ten
    assert all(ours["rmse"] < other["rmse"] for other in scores.values())
    assert ours["coverage_90"] >= 0.75
    assert list(tmp_path.rglob("history.png"))


@pytest.mark.slow
def test_pde_poisson(tmp_path):
    (scores,) = run("pde_poisson.py", tmp_path).values()
    assert scores["probkit"]["relative_error"] < 1e-8
    assert list(tmp_path.rglob("solution.png"))


@pytest.mark.slow
def test_pde_poisson_with_noise(tmp_path):
    (scores,) = run("pde_poisson.py", tmp_path, "--noise", "0.05").values()
    assert 1e-6 < scores["probkit"]["relative_error"] < 0.1


@pytest.mark.slow
def test_pde_allen_cahn(tmp_path):
    (scores,) = run("pde_allen_cahn.py", tmp_path).values()
    assert scores["probkit"]["relative_error"] < 1e-6


@pytest.mark.slow
def test_pde_advection(tmp_path):
    (scores,) = run("pde_advection.py", tmp_path).values()
    assert scores["probkit"]["relative_error"] < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("case", ["stiffness", "diffusivity"])
def test_pde_inverse(case, tmp_path):
    scores = run("pde_inverse.py", tmp_path, "--case", case)
    assert scores["unknowns"]["theta" if case == "stiffness" else "kappa"]["errors_in_sd"] < 4
    assert scores["solution"]["probkit"]["relative_error"] < 0.05
    assert list(tmp_path.rglob("solution.png"))


@pytest.mark.slow
def test_kronecker_recovery(tmp_path):
    (scores,) = run("kronecker_recovery.py", tmp_path, "--engine", "svi").values()
    ours = scores["evidence"]["nmse"]
    assert all(ours < scores[other]["nmse"] for other in ("am", "svd", "ksbl", "svi"))
    assert scores["svi"]["nmse"] < 0.9  # it has learned something in its few steps
    assert (tmp_path / "snr.csv").read_text().count("evidence") == 3
    assert len(list(tmp_path.rglob("*.png"))) == 3


@pytest.mark.slow
def test_irs_channel(tmp_path):
    scores = run("irs_channel.py", tmp_path, "--methods", "evidence,svd,perfect")
    shares = scores.pop("intervals at 12 dB, noise learned")
    (scores,) = scores.values()
    assert scores["evidence"]["nmse"] < 0.02
    assert scores["evidence"]["nmse"] < scores["svd"]["nmse"]
    assert scores["perfect"]["symbol_errors"] <= scores["svd"]["symbol_errors"]
    assert 0.75 < shares["evidence"]["coverage_90"] < 0.99


@pytest.mark.slow
def test_private_similarity(tmp_path):
    distances, kernels, smooth = run("private_similarity.py", tmp_path).values()
    for epsilon in ("0.3", "3.0"):
        assert distances["spectral"][epsilon] < 0.3 * distances["tree"][epsilon]
        assert kernels["grid"][epsilon] < kernels["waves"][epsilon]
    # a reduction's bias stays when noise goes
    assert smooth["waves of reduced records"]["3.0"] > 2 * smooth["waves"]["3.0"]
    assert len(list(tmp_path.glob("figures/errors_*.png"))) == 3


@pytest.mark.slow
def test_private_classification(tmp_path):
    scores = run("private_classification.py", tmp_path)["embeddings"]
    assert scores["similarity"]["4.0"] > 0.5  # ten classes
    assert (tmp_path / "figures" / "accuracy_embeddings.png").exists()


@pytest.mark.slow
def test_private_density(tmp_path):
    scores = run("private_density.py", tmp_path)["density"]["released"]
    assert scores["rmse"] < 0.3 * scores["mean_density"]
    assert scores["coverage_95"] > 0.85
    assert (tmp_path / "release.safetensors").exists()


@pytest.mark.slow
def test_fractional_bridge(tmp_path):
    for scores in run("fractional_bridge.py", tmp_path).values():
        assert abs(scores["default guide"]["gap"]) < 1e-6  # the same steps, in closed form
        assert scores["published control"]["gap"] > 1
    assert (tmp_path / "bridge.png").exists()


@pytest.mark.slow
def test_hurst_volatility(tmp_path):
    scores = run("hurst_volatility.py", tmp_path)
    (simulated,) = (rows for label, rows in scores.items() if label.startswith("simulated"))
    assert simulated["without noise"]["H"] < simulated["with noise"]["H"]
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.mark.slow
def test_fractional_drift(tmp_path):
    scores = run("fractional_drift.py", tmp_path, "--paths", "2")["drift"]
    assert all(abs(found["importance_gap"]) < 1 for found in scores.values())
    assert scores["network"]["elbo"] > scores["truth"]["elbo"] - 10
    assert (tmp_path / "drift.png").exists()


@pytest.mark.slow
def test_latent_video(tmp_path):
    scores = run("latent_video.py", tmp_path)["moving digits"]
    for noise in ("fractional", "brownian"):
        found = scores[f"{noise}, seed 0"]
        # the few steps teach it more than the mean frame knows, without a code that costs more
        assert found["reconstruction"] > scores["mean frame"]["prediction"]
        assert 0 < found["kl"] < 100
    assert len(list(tmp_path.rglob("frames_*.png"))) == 2
    assert (tmp_path / "study" / "figures" / "psnr.png").exists()
