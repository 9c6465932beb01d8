"""``LatentVideoModel``: videos as functions of a latent SDE with fractional or Brownian noise.

Frame i of a video is ``N(decoder(X(t_i), w), noise^2)``, X the path of :class:`LatentDynamics` and
w a content that does not move. From a video, an encoder gives w, a context g(t) that steers the
posterior of the path, and a diagonal Gaussian for its start. The objective is the evidence bound

    E log p(frames given X, w) - KL(path)

with w a point estimate without a prior, as published.

A law on paths has no density but relative to another: that of the site ``path`` is relative to the
prior's, which makes it 1 in the model and dQ/dP in the guide, given by its expected logarithm.

Source: Daems et al., ICLR 2024, arXiv 2310.12975. Ours: exact steps, velocities and a
posterior that tracks (``probkit.fractional.video_dynamics``), strided convolutions, sprites, and a
likelihood that can be estimated from frames drawn at random (``num_decoded``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from probkit.errors import ConfigurationError, message
from probkit.fractional.video_batches import EqualBatches, ShuffledVideos, check_frames
from probkit.fractional.video_dynamics import LatentDynamics, LatentPath, PathLaw, joined
from probkit.fractional.video_networks import FrameDecoder, SpriteDecoder, VideoEncoder
from probkit.infer import SVI, Batches, FitResult, pyro_seed
from probkit.random import Seed, as_generator
from probkit.validation import require_all_positive

__all__ = ["LatentVideoModel", "VideoBound"]

_COARSEST = 4
_CHUNK = 64
_START_LOG_SD = -2.0


class VideoBound(NamedTuple):
    """The evidence bound of every video, (B,) each.

    Attributes:
        elbo: ``log_likelihood - kl``, in nats.
        log_likelihood: of all pixels of all frames.
        squared_error: of all pixels; the published bound, which drops constants, is
            ``-squared_error - kl`` at the default noise.
        kl: of the path from its prior.
    """

    elbo: Float[Tensor, " B"]
    log_likelihood: Float[Tensor, " B"]
    squared_error: Float[Tensor, " B"]
    kl: Float[Tensor, " B"]


class LatentVideoModel(nn.Module):
    """A Pyro model of videos, with its guide.

    Args:
        dynamics: the latent equation; by default 8 coordinates with fractional noise.
        size: height and width of a frame, 4 times a power of 2.
        widths: channels of the encoder's stages, one for each halving of ``size`` down to 4.
        num_features, num_content: lengths of the code of a frame, and of the content.
        pixel_noise: sd of a pixel.
        num_decoded: frames, drawn anew for every batch, that the likelihood is estimated from in
            training; None for all. The estimate has no bias.
        pooled: halve frames as published, see ``VideoEncoder``.
        decoder: "convolution", or "sprites" for objects that move and do not change; then every
            two decoded coordinates are the position of one; ``num_objects`` of the dynamics is
            their number.
        seed: of the starting weights of encoder and decoder.

    Raises:
        ConfigurationError: settings that are not positive or do not fit together.

    Example:
        >>> from probkit.fractional.video_data import moving_digits
        >>> dynamics = LatentDynamics(dim=4, hidden=8, num_frames=5)
        >>> model = LatentVideoModel(dynamics, widths=(4, 8, 8))
        >>> videos = moving_digits(2, num_frames=5)
        >>> model.bound(videos).elbo.shape
        torch.Size([2])
        >>> model.predict(videos, 3, num_samples=6).shape
        torch.Size([6, 2, 3, 32, 32])
    """

    def __init__(
        self,
        dynamics: LatentDynamics | None = None,
        *,
        size: int = 32,
        widths: Sequence[int] = (16, 32, 64),
        num_features: int = 64,
        num_content: int = 64,
        pixel_noise: float = 0.5**0.5,
        num_decoded: int | None = None,
        pooled: bool = False,
        decoder: str = "convolution",
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(size, widths, num_features, num_content, pixel_noise, num_decoded)
        self.dynamics = LatentDynamics(seed=seed) if dynamics is None else dynamics
        _check_decoder(decoder, self.dynamics.num_decoded)
        self.size, self.num_content = size, num_content
        self.pixel_noise, self.num_decoded = pixel_noise, num_decoded
        start = 2 * self.dynamics.dim * self.dynamics.start_size
        with pyro_seed(seed):
            self.encoder = VideoEncoder(
                size,
                widths,
                num_features=num_features,
                num_content=num_content,
                num_context=self.dynamics.num_context,
                num_start=start,
                pooled=pooled,
            )
            number = self.dynamics.num_decoded
            self.decoder: nn.Module = (
                SpriteDecoder(size, number // 2, num_content)
                if decoder == "sprites"
                else FrameDecoder(widths, number, num_content, pooled)
            )
        with torch.no_grad():  # x(0) starts well inside its prior, all else in it
            log_sd = self.encoder.start.bias.unflatten(0, (2, self.dynamics.dim, -1))[1]
            log_sd.zero_()[:, 0] = _START_LOG_SD

    def model(self, frames: Float[Tensor, "B T H W"]) -> None:
        """The Pyro model; its objective is the mean over videos.

        Sites: ``content`` (B, C), without a prior; ``path`` (B, N + 1, D, K + 1), x and the modes
        of the noise; ``frames``, observed.
        """
        pyro.module("video", self)
        (B, T), m = frames.shape[:2], self.dynamics.num_substeps
        with pyro.plate("videos", B), pyro.poutine.scale(scale=1 / B):
            white = dist.Normal(frames.new_zeros(()), 1.0).expand([self.num_content])
            content = pyro.sample("content", white.to_event(1).mask(False))
            path = pyro.sample("path", PathLaw(self.dynamics, B, (T - 1) * m))
            chosen = torch.arange(T, device=frames.device)
            if self.num_decoded is not None and self.num_decoded < T:
                chosen = torch.randperm(T, device=frames.device)[: self.num_decoded]
            mean = self.decode(path[:, chosen * m, :, 0], content)
            with pyro.poutine.scale(scale=T / len(chosen)):
                law = dist.Normal(mean, self.pixel_noise).to_event(3)
                pyro.sample("frames", law, obs=frames[:, chosen])

    def guide(self, frames: Float[Tensor, "B T H W"]) -> None:
        """The Pyro guide.

        Raises:
            ShapeError, DtypeError, DataError: these are no videos; see :meth:`bound`.
        """
        content, path = self._infer(frames, None)
        pyro.module("video", self)
        with pyro.plate("videos", len(frames)), pyro.poutine.scale(scale=1 / len(frames)):
            pyro.sample("content", dist.Delta(content, event_dim=1))
            pyro.sample("path", dist.Delta(joined(path), path.kl, event_dim=3))

    def decode(
        self, x: Float[Tensor, "B F D"], content: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B F H W"]:
        """Mean of frames from states and contents."""
        found: Tensor = self.decoder(x[..., : self.dynamics.num_decoded], content)
        return found

    @torch.no_grad()
    def bound(self, frames: Float[Tensor, "B T H W"], *, seed: Seed = 0) -> VideoBound:
        """The evidence bound by one path for every video, and its parts.

        Raises:
            ShapeError: not (B, T, size, size), or fewer than three frames.
            DtypeError: not floating-point.
            DataError: pixels that are not finite or outside [0, 1].
        """
        content, path = self._infer(frames, as_generator(seed, frames.device))
        mean = self._decode_path(path.x, content)
        log_likelihood = dist.Normal(mean, self.pixel_noise).log_prob(frames).sum((1, 2, 3))
        error = (mean - frames).square().sum((1, 2, 3))
        return VideoBound(log_likelihood - path.kl, log_likelihood, error, path.kl)

    @torch.no_grad()
    def reconstruct(
        self, frames: Float[Tensor, "B T H W"], *, seed: Seed = 0
    ) -> Float[Tensor, "B T H W"]:
        """Decoded frames along one path of the posterior; errors as :meth:`bound`."""
        content, path = self._infer(frames, as_generator(seed, frames.device))
        return self._decode_path(path.x, content)

    @torch.no_grad()
    def predict(
        self,
        frames: Float[Tensor, "B T H W"],
        num_frames: int,
        *,
        num_samples: int = 10,
        seed: Seed = 0,
    ) -> Float[Tensor, "S B F H W"]:
        """Draws of the frames that follow: the posterior up to the last frame, then the prior.

        Raises:
            ConfigurationError: no frames or draws asked for; further errors as :meth:`bound`.
        """
        require_all_positive(num_frames=num_frames, num_samples=num_samples)
        generator = as_generator(seed, frames.device)
        content, path = self._infer(frames, generator, num_samples)
        steps = num_frames * self.dynamics.num_substeps
        rest = self.dynamics.follow(path, steps, generator=generator)
        pairs = zip(rest.x.split(_CHUNK, 1), content.split(_CHUNK), strict=True)
        found = torch.cat([self._decode_path(x, w)[:, 1:] for x, w in pairs])
        return found.unflatten(0, (num_samples, len(frames)))

    def fit(
        self,
        videos: Float[Tensor, "num_videos T H W"] | Iterable[Tensor],
        *,
        engine: SVI | None = None,
        steps: int = 1000,
        batch_size: int = 16,
        seed: int = 0,
        **settings: Any,
    ) -> FitResult:
        """Train in place by minibatches.

        Args:
            videos: all of them, or an iterable of batches of one size; on the model's device.
            engine: by default Adam with a learning rate from .004 down to .0004 and the norm of
                gradients cut at 1000.
            steps: of the default engine.
            batch_size: where all videos are given.
            seed: of order, paths and decoded frames.
            settings: for ``SVI.fit``, such as ``callbacks`` and ``progress``.

        Returns:
            The engine's result; its objective is the mean evidence bound of a video.

        Raises:
            ConfigurationError: a batch larger than the data.
            DataError: batches of several sizes; further errors as :meth:`bound`.
        """
        if isinstance(videos, Tensor):
            check_frames(videos, self.size)
            videos = ShuffledVideos(videos, batch_size, seed)
        if engine is None:
            engine = SVI(
                steps=steps,
                learning_rate=4e-3,
                clip_norm=1000.0,
                window=min(100, steps),
                num_posterior_samples=1,
                num_diagnostic_samples=0,
            )
        batches = EqualBatches(videos)
        engine = replace(engine, guide=self.guide)
        return engine.fit(self.model, Batches(batches, batches.size), seed=seed, **settings)

    def _infer(
        self, frames: Tensor, generator: torch.Generator | None, num_samples: int = 1
    ) -> tuple[Tensor, LatentPath]:
        """Contents and paths of the posterior, (S B) of each, the sample first."""
        check_frames(frames, self.size)
        codes = self.encoder(frames)
        start = codes.start.unflatten(-1, (2, self.dynamics.dim, -1))
        if num_samples > 1:
            start = start.repeat(num_samples, 1, 1, 1)
        content = codes.content.repeat(num_samples, 1)
        context = codes.context.repeat(num_samples, 1, 1)
        return content, self.dynamics.infer(start, context, generator=generator)

    def _decode_path(self, x: Float[Tensor, "N B D"], content: Tensor) -> Tensor:
        return self.decode(x[:: self.dynamics.num_substeps].transpose(0, 1), content)


def _check(
    size: int,
    widths: Sequence[int],
    num_features: int,
    num_content: int,
    pixel_noise: float,
    num_decoded: int | None,
) -> None:
    require_all_positive(num_features=num_features, num_content=num_content)
    require_all_positive(pixel_noise=pixel_noise, num_decoded=num_decoded or 1)
    if not widths or min(widths) < 1 or size != _COARSEST * 2 ** len(widths):
        raise ConfigurationError(
            message(
                "There must be one width for each halving of the frame down to 4 pixels",
                where="widths",
                got=f"{tuple(widths)} for frames of {size}",
                expected="size = 4 * 2 ** len(widths)",
            )
        )


def _check_decoder(decoder: str, num_decoded: int) -> None:
    if decoder not in ("convolution", "sprites"):
        raise ConfigurationError(
            message(
                "There is no such decoder",
                where="decoder",
                got=repr(decoder),
                expected='"convolution" or "sprites"',
            )
        )
    if decoder == "sprites" and num_decoded % 2:
        raise ConfigurationError(
            message(
                "Objects have two coordinates each",
                where="decoder",
                got=f'"sprites" for {num_decoded} decoded coordinates',
                expected="an even number",
                remedy="choose dim of the dynamics accordingly",
            )
        )
