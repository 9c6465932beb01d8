"""The latent video model: its parts against closed forms, its paths against plain loops."""

import math

import pyro
import pytest
import torch

from probkit.errors import ConfigurationError, DataError, DtypeError, ShapeError
from probkit.fractional import MarkovApproxFBM
from probkit.fractional.video import LatentVideoModel
from probkit.fractional.video_data import MovingDigits, moving_digits
from probkit.fractional.video_dynamics import LatentDynamics, PathLaw
from probkit.fractional.video_networks import SpriteDecoder, waves
from probkit.infer import SVI, param_scope, pyro_seed

F64 = torch.float64


def small(dynamics=None, **settings):
    settings = {"widths": (4, 4, 8), "num_features": 8, "num_content": 6} | settings
    return LatentVideoModel(LatentDynamics(**(SMALL | (dynamics or {}))), **settings)


SMALL = {"dim": 4, "num_frames": 6, "num_context": 5, "hidden": 8, "diffusion_width": 4}


def stir(module, seed=0, size=0.2):
    """Weights away from the zeros that some start from."""
    with pyro_seed(seed), torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim():
                parameter.add_(size * torch.randn_like(parameter))
    return module


# -- dynamics --------------------------------------------------------------------------------------


def test_noise_of_the_path_is_fractional():
    """Constant coefficients: the covariance of X is that of the process, start included."""
    dynamics = LatentDynamics(
        dim=2, posterior="gaussian", hurst=0.3, diffusion=0.7, num_frames=7, hidden=4
    ).double()
    path = dynamics.sample(40_000, 6, generator=torch.Generator().manual_seed(0))
    moved = (path.x[1:] - path.x[0]).detach().permute(2, 1, 0)
    found = moved.mT @ moved / moved.shape[1]
    process = MarkovApproxFBM(0.3, num_steps=6, dt=0.1)
    exact = 0.49 * process.covariance(0.1 * torch.arange(1, 7, dtype=F64))
    scale = exact.diagonal().sqrt()
    error = (found - exact) / (scale[:, None] * scale) * math.sqrt(moved.shape[1])
    assert float(error.abs().max()) < 5  # standard errors are 1 ... sqrt 2 in this unit


def test_half_a_hurst_index_is_brownian():
    """At H = 1/2 the increments of the modes' sum are white; the same law as Brownian noise."""
    laws = []
    for settings in ({"noise": "fractional"}, {"noise": "brownian"}):
        dynamics = stir(LatentDynamics(**SMALL, **settings), seed=4).double()
        path = dynamics.sample(20_000, 5, generator=torch.Generator().manual_seed(1))
        laws.append(path.x[-1].detach())
    # weights differ in shape between the two for the posterior only
    for moment in (1, 2):
        first, second = (law**moment for law in laws)
        error = ((first.var(0) + second.var(0)) / len(first)).sqrt()
        assert float(((first.mean(0) - second.mean(0)) / error).abs().max()) < 4


@pytest.mark.parametrize("substeps", [1, 3])
@pytest.mark.parametrize("noise", ["fractional", "brownian"])
def test_gaussian_posterior_against_a_plain_loop(noise, substeps):
    """The same paths step by step, and a divergence that is the mean of log q - log p."""
    dynamics = LatentDynamics(**SMALL, noise=noise, num_substeps=substeps, posterior="gaussian")
    dynamics = stir(dynamics, size=0.05).double()
    B, T, D, K = 4000, 3, 4, dynamics.noise.size
    context = torch.randn(T, 5, generator=torch.Generator().manual_seed(2), dtype=F64)
    start = torch.full((B, 2, D, dynamics.start_size), 0.1, dtype=F64)
    start[:, 1] = -0.1
    with torch.no_grad():
        wide = context.expand(B, -1, -1)
        path = dynamics.infer(start, wide, generator=torch.Generator().manual_seed(3))
        # the plain loop
        generator = torch.Generator().manual_seed(3)
        first = torch.randn(B, D, K + 2, generator=generator, dtype=F64)
        white = torch.randn((T - 1) * substeps, B, D, K, generator=generator, dtype=F64)
        own, size = first.clone(), dynamics.start_size
        own[..., :size] = 0.1 + math.exp(-0.1) * first[..., :size]
        ratio = (first[..., :size].square() - own[..., :size].square()).sum((1, 2)) / -2
        ratio = ratio + 0.1 * D * size
        terms = dynamics.noise.terms(context)
        h, decay, _, root = terms.matrices
        x = dynamics.start_mean + dynamics.start_log_sd.exp() * own[..., 0]
        y, slope = own[..., 1:-1] @ terms.start_root.mT, terms.slope * own[..., -1]
        assert torch.allclose(path.x[0], x) and torch.allclose(path.y[0], y)
        for n in range((T - 1) * substeps):
            frame, part = divmod(n, substeps)
            g = context[frame] + part / substeps * (context[frame + 1] - context[frame])
            expected = y @ (terms.weights * (decay - 1)) + slope * h
            seen = [x, expected / h**0.5, (y / terms.scale).flatten(1), g.expand(B, 5)]
            mean, log_sd = dynamics.shift_net(torch.cat(seen, 1)).chunk(2, -1)
            e = white[n]
            along = e @ terms.along
            e = e + (mean + (log_sd.exp() - 1) * along)[..., None] * terms.along
            # e has mean m and sd v^1/2 along one direction, and is as before across it
            ratio = ratio + (0.5 * (e.square().sum(-1) - white[n].square().sum(-1)) - log_sd).sum(1)
            after = y * decay + e @ root.mT
            moved = (after - y) @ terms.weights + slope * h
            x = x + dynamics.drift(x) * h + dynamics.diffusion_net(x) * moved
            y = after
            assert torch.allclose(path.x[n + 1], x) and torch.allclose(path.y[n + 1], y)
    gap = ratio - path.kl
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / B**0.5
    assert 0.05 < float(path.kl.mean()) < 2
    # it is a ratio of densities: its inverse has mean 1 under the posterior
    inverse = (-ratio).exp()
    assert abs(float(inverse.mean()) - 1) < 4 * float(inverse.std()) / B**0.5


@pytest.mark.parametrize("objects", [1, 2])
@pytest.mark.parametrize("noise", ["fractional", "brownian"])
def test_tracking_posterior_against_a_plain_loop(noise, objects):
    """Steps written out; divergence as the mean of log q - log p; nothing is steered at the end."""
    dynamics = LatentDynamics(**SMALL, noise=noise, num_objects=objects)
    dynamics = stir(dynamics, size=0.05).double()
    B, T, K = 4000, 4, dynamics.noise.size
    context = torch.randn(T, 5, generator=torch.Generator().manual_seed(2), dtype=F64)
    start = torch.zeros(B, 2, 4, dynamics.start_size, dtype=F64)
    with torch.no_grad():
        # near the prior, where averages of ratios of densities converge
        dynamics.shift_net[-1].bias[2:4].add_(0.9)
        dynamics.shift_net[-1].bias[4:].sub_(4.0)
        generator = torch.Generator().manual_seed(3)
        path = dynamics.infer(start, context.expand(B, -1, -1), generator=generator)
        generator = torch.Generator().manual_seed(3)
        torch.randn(B, 4, K + 2, generator=generator, dtype=F64)
        white = torch.randn(T - 1, B, 4, K, generator=generator, dtype=F64)
        terms, tracker = dynamics.noise.terms(context), dynamics.tracker
        h, decay, _, root = terms.matrices
        fall = terms.weights * (decay - 1)
        q, v = path.x[0].chunk(2, -1)
        y, ratio = path.y[0], torch.zeros(B, dtype=F64)
        for n in range(T - 1):
            expected = y @ fall + path.slope * h
            g = context[n].expand(B, 5)
            next_q = q + 2.5 * h * v
            s = dynamics.diffusion_net(q)
            pull = dynamics.drift_net(torch.cat([waves(q), v], 1))
            next_v = v + pull * h + s * expected[:, 2:]
            where, speed = tracker.read(g).chunk(2, -1)
            if objects == 2:  # either order, by how near it is
                k, r = tracker.log_sharpness.exp(), tracker.log_velocity.exp()
                straight, crossed = (
                    torch.exp(-k * ((next_q - w) ** 2 + r * (next_v - u) ** 2).sum(1, keepdim=True))
                    for w, u in ((where, speed), (where.flip(1), speed.flip(1)))
                )
                share = straight / (straight + crossed)
                where = share * where + (1 - share) * where.flip(1)
                speed = share * speed + (1 - share) * speed.flip(1)
            off = [(where - next_q) / (2.5 * h), speed - next_v]
            seen = [q, v, expected / h**0.5, (y / terms.scale).flatten(1), g, *off]
            shift, log_sd, near, fast = dynamics.shift_net(torch.cat(seen, 1)).chunk(4, -1)
            wanted = torch.sigmoid(near - 1.0) * off[0] + torch.sigmoid(fast + 1.0) * off[1]
            fresh = s * (root.mT @ terms.weights).norm()
            mean, log_sd = shift + wanted / fresh, log_sd - 1.0
            if n == T - 2:
                mean, log_sd = torch.zeros_like(mean), torch.zeros_like(log_sd)
            along = white[n] @ terms.along
            e = mean + log_sd.exp() * along[:, 2:]
            q, v = next_q, next_v + fresh * e
            assert torch.allclose(path.x[n + 1], torch.cat([q, v], 1))
            ratio = ratio + (0.5 * (e.square() - along[:, 2:].square()) - log_sd).sum(1)
            y = path.y[n + 1]
    gap = ratio - path.kl
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / B**0.5
    inverse = (-ratio).exp()
    assert abs(float(inverse.mean()) - 1) < 4 * float(inverse.std()) / B**0.5


def test_sprites_move_by_whole_and_half_pixels():
    """A quarter of the frame a unit; half a pixel is the mean of neighbours; 1 - prod(1 - s)."""
    decoder = stir(SpriteDecoder(16, num_objects=1, num_content=3)).double()
    content = torch.ones(1, 3, dtype=F64)
    places = torch.tensor([[0.0, 0.0], [0.25, 0.0], [0.0, -0.125], [9.0, 0.0]], dtype=F64)
    still, down, left, away = decoder(places[None], content)[0].detach()
    assert float(still[4:12, 4:12].min()) > 0
    assert float(still.sum()) == pytest.approx(float(still[4:12, 4:12].sum()), rel=1e-12)
    assert torch.allclose(down, still.roll(1, 0)) and float(away.abs().max()) == 0
    assert torch.allclose(left, (still + still.roll(-1, 1)) / 2)
    pair = stir(SpriteDecoder(16, num_objects=2, num_content=3)).double()
    both = pair(torch.zeros(1, 1, 4, dtype=F64), content)
    far = 9.0 * torch.ones(1, 1, 2, dtype=F64)
    near = torch.zeros_like(far)
    alone = [pair(torch.cat(order, -1), content) for order in ((near, far), (far, near))]
    assert torch.allclose(both, 1 - (1 - alone[0]) * (1 - alone[1]))


@pytest.mark.parametrize("noise", ["fractional", "brownian"])
def test_control_costs_the_divergence_of_the_white_noise(noise):
    """u^2 h / 2 bounds the divergence of the modes, and is equal to it for Brownian motion."""
    dynamics = stir(LatentDynamics(**SMALL, noise=noise, posterior="control")).double()
    terms = dynamics.noise.terms(torch.zeros(1, dtype=F64))
    h, _, response, root = terms.matrices
    # Q is singular to rounding, so its inverse is taken where it is not
    share = float(response @ torch.linalg.pinv(root @ root.mT, rtol=1e-9) @ response) / h
    assert share == pytest.approx(1.0) if noise == "brownian" else 0.5 < share < 1.0
    # the control moves the path by w'response u, as in the solver of probkit.sde
    start, context = torch.zeros(1, 2, 4, 1, dtype=F64), torch.ones(1, 4, 5, dtype=F64)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        path = dynamics.infer(start, context, generator=generator)
        x, y, kl = path.x[0], path.y[0], torch.zeros(1, dtype=F64)
        generator = torch.Generator().manual_seed(3)
        torch.randn(1, 4, dynamics.noise.size + 2, generator=generator, dtype=F64)
        white = torch.randn(3, 1, 4, dynamics.noise.size, generator=generator, dtype=F64)
        for n in range(3):
            expected = y @ (terms.weights * (terms.matrices.decay - 1)) + path.slope * h
            seen = [x, expected / h**0.5, (y / terms.scale).flatten(1), context[:, 0]]
            u = dynamics.shift_net(torch.cat(seen, 1))
            after = y * terms.matrices.decay + white[n] @ root.mT + u[..., None] * response
            moved = (after - y) @ terms.weights + path.slope * h
            x = x + dynamics.drift(x) * h + dynamics.diffusion_net(x) * moved
            y, kl = after, kl + 0.5 * h * u.square().sum(-1)
    assert torch.allclose(path.x[-1], x) and torch.allclose(path.kl, kl)


@pytest.mark.parametrize("decoder", ["convolution", "sprites"])
def test_hurst_index_and_all_weights_get_gradients(decoder):
    objects = {"num_objects": 2} if decoder == "sprites" else {}
    model = stir(small(objects, decoder=decoder))
    frames = moving_digits(3, num_frames=6, seed=0)
    with param_scope():
        pyro.infer.Trace_ELBO().differentiable_loss(model.model, model.guide, frames).backward()
    idle = {n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())}
    assert idle == set()
    assert model.dynamics.noise.raw_hurst.dtype == F64  # weights of the noise stay in float64


# -- model and guide -------------------------------------------------------------------------------


def test_pyro_objective_is_the_bound():
    """Pyro's ELBO is the mean of ``bound``; frames at random do not change it."""
    frames = moving_digits(2, num_frames=6, seed=0, dtype=F64)
    model = stir(small()).double()
    whole = float(model.bound(frames.repeat(200, 1, 1, 1), seed=0).elbo.mean())
    elbo, wide = pyro.infer.Trace_ELBO(), frames.repeat(20, 1, 1, 1)
    for num_decoded, runs in ((None, 4), (2, 12)):
        model.num_decoded = num_decoded
        with param_scope(), pyro_seed(1):
            losses = [elbo.loss(model.model, model.guide, wide) for _ in range(runs)]
        assert -sum(losses) / runs == pytest.approx(whole, rel=0.02)


def test_prior_paths_are_the_models():
    dynamics = stir(LatentDynamics(**SMALL))
    with pyro_seed(0):
        drawn = PathLaw(dynamics, 3, 5).sample((2,))
    assert drawn.shape == (2, 3, 6, 4, 9) and bool(drawn.isfinite().all())
    assert PathLaw(dynamics, 3, 5).log_prob(drawn).tolist() == [[0.0] * 3] * 2


def test_prediction_goes_on_from_the_posterior():
    model = stir(small(), size=0.05).double()  # a wild drift may also contract
    frames = moving_digits(2, num_frames=6, seed=0, dtype=F64)
    draws = model.predict(frames[:, :4], 3, num_samples=40, seed=1)
    assert draws.shape == (40, 2, 3, 32, 32)
    assert torch.equal(draws, model.predict(frames[:, :4], 3, num_samples=40, seed=1))
    # draws go apart with time, and frames after the known ones are not looked at
    assert float(draws[:, :, 2].var(0).mean()) > float(draws[:, :, 0].var(0).mean()) > 0


def test_training_raises_the_bound_and_leaves_nothing_global():
    model = small({"noise": "brownian"}, num_decoded=3)
    before = float(model.bound(moving_digits(16, num_frames=6, seed=9)).elbo.mean())
    engine = SVI(
        steps=40, learning_rate=1e-2, window=10, num_posterior_samples=1, num_diagnostic_samples=0
    )
    result = model.fit(MovingDigits(4, num_frames=6), engine=engine, seed=0)
    after = float(model.bound(moving_digits(16, num_frames=6, seed=9)).elbo.mean())
    assert after > before + 50
    assert len(result.history["objective"]) == 40
    assert len(pyro.get_param_store()) == 0


def test_published_settings_make_a_model():
    """First order, control and L2 weights: the state of Y(0) is the prior's, and all is finite."""
    settings = {"posterior": "control", "weights": "l2", "num_substeps": 3}
    model = stir(small(settings, pooled=True))
    frames = moving_digits(2, num_frames=4, seed=0)
    assert model.dynamics.noise.size == 5 and model.dynamics.start_size == 1
    bound = model.bound(frames)
    assert bool(bound.elbo.isfinite().all()) and bool((bound.kl > 0).all())
    assert torch.allclose(bound.elbo, bound.log_likelihood - bound.kl)
    constant = -0.5 * math.log(math.pi) * frames[0].numel()
    assert torch.allclose(bound.log_likelihood, constant - bound.squared_error, rtol=1e-4)


def test_noise_goes_where_the_states_are():
    terms = LatentDynamics(**SMALL).noise.terms(torch.empty(1, device="meta"))
    parts = [*terms.matrices[1:], *terms[1:]]
    assert {(part.device.type, part.dtype) for part in parts} == {("meta", torch.float32)}


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda f: (255 * f).byte(), DtypeError, "255"),
        (lambda f: f[:, :2], ShapeError, "first three"),
        (lambda f: f[:, :, :16], ShapeError, "32, 32"),
        (lambda f: f[0], ShapeError, "videos, frames"),
        (lambda f: 255 * f, DataError, "between 0 and 1"),
        (lambda f: f.where(f < 0.9, math.nan), DataError, "finite"),
    ],
)
def test_bad_frames_are_refused(change, error, words):
    frames = change(moving_digits(2, num_frames=4, seed=0))
    model = small()
    for use in (model.bound, model.guide, lambda f: model.fit(f, steps=1, batch_size=2)):
        with pytest.raises(error, match=words):
            use(frames)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dim": 3}, "dim"),
        ({"num_objects": 3}, "num_objects"),
        ({"dim": 24, "num_objects": 6}, "num_objects"),
        ({"num_objects": 0}, "num_objects"),
        ({"noise": "white"}, "noise"),
        ({"posterior": "exact"}, "posterior"),
        ({"frame_step": 0.0}, "frame_step"),
        ({"hurst": 1.2}, "urst"),
        ({"dim": 6}, "sprites"),
        ({"decoder": "pixels"}, "decoder"),
    ],
)
def test_impossible_dynamics_are_refused(settings, words):
    decoder = settings.pop("decoder", "sprites")
    with pytest.raises(ConfigurationError, match=words):
        small(settings, decoder=decoder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"widths": (4, 8)}, "widths"), ({"pixel_noise": -1.0}, "pixel_noise")],
)
def test_impossible_models_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        small(**settings)


def test_no_prediction_of_nothing():
    frames = moving_digits(1, num_frames=4, seed=0)
    with pytest.raises(ConfigurationError, match="num_frames"):
        small().predict(frames, 0)
