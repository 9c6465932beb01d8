"""A whole study of moving digits: train, predict, compare noises and baselines, report and draw."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probkit.fractional.video import LatentVideoModel
from probkit.fractional.video_batches import CutVideos
from probkit.fractional.video_data import MovingDigits, moving_digits
from probkit.fractional.video_dynamics import LatentDynamics
from probkit.fractional.video_figures import plot_frames
from probkit.fractional.video_scores import baseline_psnr, prediction_psnr, psnr
from probkit.infer import FitResult
from probkit.plot import plot_curves, plot_history
from probkit.report import write_report

__all__ = ["PUBLISHED", "TrainedVideo", "VideoSettings", "VideoStudy", "score_video", "train_video"]

_TEST_SEED, _MEAN_SEED, _DRAW_SEED = 1_000_001, 1_000_002, 1_000_003

PUBLISHED: dict[str, Any] = {
    "size": 64,
    "dynamics": {
        "dim": 6,
        "posterior": "control",
        "weights": "l2",
        "num_substeps": 3,
        "num_context": 64,
        "hidden": 200,
        "diffusion_width": 200,
    },
    "model": {"widths": (64, 128, 256, 256), "pooled": True},
    "batch_size": 32,
}
"""Settings of Daems et al. for frames of 64 x 64, for ``VideoSettings``."""


@dataclass(frozen=True)
class VideoSettings:
    """Data, model and training of moving digits.

    Args:
        size, num_frames, num_digits: of the videos.
        num_known: first frames that predictions are given; training videos are cut to random
            lengths from there on.
        dynamics: settings of ``LatentDynamics``.
        model: settings of ``LatentVideoModel``.
        steps, batch_size: of training; all batches are fresh.
        num_test, num_draws: test videos, and draws of the prediction of each.
        device: where to train.
    """

    size: int = 32
    num_frames: int = 25
    num_digits: int = 2
    num_known: int = 10
    dynamics: dict[str, Any] = field(default_factory=lambda: {"num_objects": 2})
    model: dict[str, Any] = field(
        default_factory=lambda: {"widths": (8, 16, 32), "decoder": "sprites"}
    )
    steps: int = 4500
    batch_size: int = 16
    num_test: int = 128
    num_draws: int = 200
    device: str = "cpu"

    def test(self) -> Tensor:
        """The test videos, of digits that training never shows."""
        return self._draw(self.num_test, "test", _TEST_SEED)

    def mean_frame(self) -> Tensor:
        """Mean of the frames of 200 training videos."""
        return self._draw(200, "train", _MEAN_SEED).mean((0, 1))

    def _draw(self, count: int, split: str, seed: int) -> Tensor:
        return moving_digits(
            count,
            num_frames=self.num_frames,
            size=self.size,
            num_digits=self.num_digits,
            split=split,
            seed=seed,
        ).to(self.device)


@dataclass(frozen=True)
class TrainedVideo:
    """A trained model, the record of its training and the CPU seconds that it took."""

    model: LatentVideoModel
    result: FitResult
    seconds: float


def train_video(settings: VideoSettings, noise: str, seed: int, **options: Any) -> TrainedVideo:
    """Train on fresh videos.

    Args:
        settings: of data, model and training.
        noise: "fractional" or "brownian".
        seed: of the weights, the videos and the training.
        options: for ``LatentVideoModel.fit``.
    """
    dynamics = LatentDynamics(
        noise=noise, seed=seed, num_frames=settings.num_frames, **settings.dynamics
    )
    model = LatentVideoModel(dynamics, size=settings.size, seed=seed, **settings.model)
    model.to(settings.device)
    stream = MovingDigits(
        settings.batch_size,
        num_frames=settings.num_frames,
        size=settings.size,
        num_digits=settings.num_digits,
        seed=seed,
        device=settings.device,
    )
    start = time.process_time()
    videos = CutVideos(stream, settings.num_known, seed)
    result = model.fit(videos, steps=settings.steps, seed=seed, **options)
    return TrainedVideo(model, result, time.process_time() - start)


def score_video(settings: VideoSettings, model: LatentVideoModel) -> dict[str, float]:
    """Bound and PSNR on the test videos.

    Returns:
        ``elbo`` (nats a video, constants dropped as published: minus the squared error in units
        of twice the noise's variance, minus the divergence), ``kl``, ``reconstruction`` (PSNR),
        ``prediction`` (PSNR of the mean of the draws), ``best_draw`` (PSNR of the best one) and
        ``hurst``.
    """
    test = settings.test()
    known, truth = test[:, : settings.num_known], test[:, settings.num_known :]
    bound = model.bound(test, seed=_DRAW_SEED)
    error = bound.squared_error / (2 * model.pixel_noise**2)
    predicted = [
        model.predict(part, truth.shape[1], num_samples=settings.num_draws, seed=_DRAW_SEED)
        for part in known.split(16)
    ]
    found = prediction_psnr(torch.cat(predicted, 1), truth)
    return {
        "elbo": -float((error + bound.kl).mean()),
        "kl": float(bound.kl.mean()),
        "reconstruction": float(psnr(model.reconstruct(test, seed=_DRAW_SEED), test).mean()),
        "prediction": found["mean"],
        "best_draw": found["best"],
        "hurst": model.dynamics.noise.hurst.item(),
    }


@dataclass(frozen=True)
class VideoStudy:
    """Compare noises on moving digits and write everything to a directory.

    Args:
        out: a directory.
        settings: of data, model and training.
        seeds: one training of each noise for each.
        noises: "fractional", "brownian" or both.
        progress: show bars.
    """

    out: Path
    settings: VideoSettings = field(default_factory=VideoSettings)
    seeds: Sequence[int] = (0,)
    noises: Sequence[str] = ("fractional", "brownian")
    progress: bool = False

    def run(self) -> Iterator[str]:
        """Train and judge; yields the lines that a user should see."""
        settings, test = self.settings, self.settings.test()
        known, truth = test[:, : settings.num_known], test[:, settings.num_known :]
        baselines = baseline_psnr(known, truth, settings.mean_frame())
        scores = {name: {"prediction": value} for name, value in baselines.items()}
        for name, value in baselines.items():
            yield f"{name}: PSNR {value:.2f} dB"
        trained: dict[str, TrainedVideo] = {}
        for seed in self.seeds:
            for noise in self.noises:
                name = f"{noise}, seed {seed}"
                trained[name] = train_video(settings, noise, seed, progress=self.progress)
                scores[name] = score_video(settings, trained[name].model)
                scores[name]["cpu_seconds"] = trained[name].seconds
                figures = "  ".join(f"{key} {value:.4g}" for key, value in scores[name].items())
                yield f"{name}: {figures}"
        record = {
            "title": "stochastic moving digits",
            "data": {
                "frames": f"{settings.num_frames} of {settings.size} x {settings.size}",
                "known frames": settings.num_known,
                "test videos": settings.num_test,
                "draws": settings.num_draws,
            },
            "scores": {"moving digits": scores},
            "figures": self._draw(trained, test),
        }
        yield f"report: {write_report(self.out, record)}"

    def _draw(self, trained: dict[str, TrainedVideo], test: Tensor) -> dict[str, str]:
        folder, found = self.out / "figures", {}
        for name, one in trained.items():
            stem = name.replace(", seed ", "_")
            rows = self._strips(one.model, test[:1])
            found[f"Frames, {name}"] = plot_frames(rows, folder / f"frames_{stem}.png")
            history = one.result.history
            found[f"ELBO by step, {name}"] = plot_history(history, folder / f"elbo_{stem}.png")
        found["PSNR by frame"] = self._curves(trained, test, folder / "psnr.png")
        return {caption: str(path.relative_to(self.out)) for caption, path in found.items()}

    def _strips(self, model: LatentVideoModel, video: Tensor) -> dict[str, Tensor]:
        """Truth, reconstruction, and the mean and three draws of the prediction."""
        n = self.settings.num_known
        count = video.shape[1] - n
        number = self.settings.num_draws
        draws = model.predict(video[:, :n], count, num_samples=number, seed=_DRAW_SEED)[:, 0].cpu()
        rows = {"truth": video[0].cpu(), "reconstruction": model.reconstruct(video)[0].cpu()}
        rows["predicted mean"] = draws.mean(0)
        return rows | {f"draw {k + 1}": draws[k] for k in range(3)}

    def _curves(self, trained: dict[str, TrainedVideo], test: Tensor, path: Path) -> Path:
        """PSNR of every predicted frame, with two standard errors over videos."""
        n = self.settings.num_known
        truth, number = test[:, n:], self.settings.num_draws
        forecasts = {
            "last frame": test[:, n - 1 : n].expand_as(truth),
            "mean frame": self.settings.mean_frame().expand_as(truth),
        }
        for name, one in trained.items():
            draws = [
                one.model.predict(part, truth.shape[1], num_samples=number, seed=_DRAW_SEED).mean(0)
                for part in test[:, :n].split(16)
            ]
            forecasts[name] = torch.cat(draws)
        curves = {}
        for name, forecast in forecasts.items():
            each = psnr(forecast, truth).cpu()
            mean, spread = each.mean(0), 2 * each.std(0) / len(each) ** 0.5
            curves[name] = (mean, mean - spread, mean + spread)
        frames = np.arange(n, n + truth.shape[1])
        return plot_curves(frames, curves, ("frame", "PSNR, dB"), path)
