"""R19: the latent video model on moving digits: prediction, and fractional against Brownian noise.

Protocol: 25 frames of 32 x 32 with two digits; of 128 test videos, whose digits training never
shows, the first 10 frames are given and 15 predicted. The forecast is the mean of 200 draws; PSNR
is averaged over frames and videos. The best of the draws, as the papers choose with the truth at
hand, is reported. Both noises are trained alike with three seeds each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean, stdev

import torch

from benchmarks.frame import Context, Line, Unavailable, row
from probkit.fractional.video_scores import baseline_psnr
from probkit.fractional.video_study import PUBLISHED, VideoSettings, score_video, train_video

SEEDS = (0, 1, 2)
QUICK = {"num_frames": 8, "num_known": 4, "steps": 10, "batch_size": 4, "num_test": 8}


@row("R19", "moving digits: prediction against baselines, fractional against Brownian noise")
def video(context: Context) -> Iterator[Line]:
    settings = VideoSettings(**QUICK, num_draws=5) if context.quick else VideoSettings()
    n, test = settings.num_known, settings.test()
    baselines = baseline_psnr(test[:, :n], test[:, n:], settings.mean_frame())
    scores: dict[str, list[dict[str, float]]] = {}
    seconds = []
    for noise in ("fractional", "brownian"):
        scores[noise] = []
        for seed in SEEDS[: context.size(len(SEEDS), 1)]:
            trained = train_video(settings, noise, seed)
            seconds.append(trained.seconds)
            scores[noise].append(score_video(settings, trained.model))
    for noise, each in scores.items():
        found = [one["prediction"] for one in each]
        for name, value in baselines.items():
            key = f"{noise}_{name.replace(' ', '_')}"
            what = f"{noise}: PSNR above the {name} ({value:.2f}), dB, worst seed"
            yield Line(key, what, min(found) - value)
        best = fmean(one["best_draw"] for one in each)
        yield Line(f"{noise}_best", f"{noise}: PSNR of the best of the draws, dB", best)
        restored = fmean(one["reconstruction"] for one in each)
        yield Line(f"{noise}_restored", f"{noise}: PSNR of the reconstruction, dB", restored)
    yield Line("minutes", "CPU minutes of the longest training", max(seconds) / 60)
    yield Line("total", "CPU minutes of all trainings", sum(seconds) / 60)
    ours, theirs = ([one["elbo"] for one in scores[noise]] for noise in scores)
    spread = "one seed"
    if len(ours) > 1:
        error = math.sqrt((stdev(ours) ** 2 + stdev(theirs) ** 2) / len(ours))
        spread = f"difference {fmean(ours) - fmean(theirs):+.1f}, standard error {error:.1f}"
    yield Line(
        "elbo", "test ELBO, MA-fBM beside BM, nats a video", fmean(ours), fmean(theirs), spread
    )
    indices = ", ".join(f"{one['hurst']:.3f}" for one in scores["fractional"])
    yield Line(
        "hurst", "Hurst index, mean", fmean(o["hurst"] for o in scores["fractional"]), None, indices
    )
    if not torch.cuda.is_available():
        raise Unavailable("64 x 64 at the published sizes needs a CUDA device")
    large = VideoSettings(device="cuda", steps=context.size(3000, 5), **PUBLISHED)
    known = large.test()
    frames = baseline_psnr(
        known[:, : large.num_known], known[:, large.num_known :], large.mean_frame()
    )
    for noise in ("fractional", "brownian"):
        one = score_video(large, train_video(large, noise, 0).model)
        gain = one["prediction"] - max(frames.values())
        yield Line(f"cuda_{noise}", f"64 x 64, {noise}: PSNR above the best baseline, dB", gain)
        yield Line(f"cuda_{noise}_elbo", f"64 x 64, {noise}: test ELBO", one["elbo"])
