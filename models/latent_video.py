"""Study: videos of moving digits as functions of a latent SDE, fractional or Brownian.

    python models/latent_video.py --out results                      # both noises, CPU
    python models/latent_video.py --noise fractional --seeds 0 1 2
    python models/latent_video.py --size 64 --device cuda            # the published sizes
    python models/latent_video.py --smoke                            # small, under a minute

The model, of ``probkit.fractional.video``, for a video with content w and a path X of D latents:

    dX = b(X) dt + s(X) dB_hat,    frame_i ~ N(decoder(X(t_i), w), noise^2)

The first frames of test videos are given and the others predicted: by the posterior up to the last
known frame and the prior from there. Daems et al., ICLR 2024, arXiv 2310.12975.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from probkit.fractional.video_study import PUBLISHED, VideoSettings, VideoStudy

SMALL = VideoSettings(
    num_frames=12,
    num_known=6,
    num_digits=1,
    dynamics={"dim": 4, "hidden": 16},
    model={
        "widths": (8, 8, 16),
        "num_features": 32,
        "num_content": 16,
        "decoder": "sprites",
    },
    steps=80,
    num_test=32,
    num_draws=20,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--noise", choices=("fractional", "brownian", "both"), default="both")
    parser.add_argument("--size", type=int, choices=(32, 64), default=32)
    parser.add_argument("--steps", type=int, help="of training; default 4500")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="directory for results; default a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", help="several trainings of each noise")
    parser.add_argument("--smoke", action="store_true", help="small, quick")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="latent_video_"))

    settings = SMALL if options.smoke else VideoSettings(device=options.device)
    if options.size == 64 and not options.smoke:
        settings = VideoSettings(device=options.device, **PUBLISHED)
    if options.steps is not None:
        settings = VideoSettings(**{**vars(settings), "steps": options.steps})
    noises = ("fractional", "brownian") if options.noise == "both" else (options.noise,)
    seeds = options.seeds or [options.seed]
    study = VideoStudy(out / "study", settings, seeds, noises, progress=not options.smoke)
    for line in study.run():
        print(line)


if __name__ == "__main__":
    main()
