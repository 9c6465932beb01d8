"""The loop: how fits stop, what they keep, and that they go on where they stopped."""

from __future__ import annotations

import math
import time

import pytest
import torch

from probkit.errors import CheckpointError, NotPositiveDefiniteError
from probkit.infer import Status, StepInfo, loop
from probkit.infer.callbacks import Progress
from probkit.infer.checkpoint import Checkpointer
from probkit.infer.loop import run_loop
from probkit.infer.stopping import (
    FirstOf,
    GradientNorm,
    ImprovementPatience,
    RelativeChange,
    SecondsBudget,
    SmoothedChange,
    segment_start,
)


def start(generator):
    return {"x": torch.zeros(2, dtype=torch.float64)}


def walk(state, generator):
    x = state["x"] + torch.randn(2, generator=generator, dtype=torch.float64)
    return {"x": x}, StepInfo(objective=float(x.sum()))


def run(step, *, max_steps=20, seed=1, **options):
    generator = torch.Generator().manual_seed(seed)
    return run_loop(step, start, max_steps=max_steps, generator=generator, **options)


def failing_at(number, failure):
    """A walk whose step of that number fails in the given way."""
    calls = []

    def step(state, generator):
        calls.append(len(calls))
        proposal, info = walk(state, generator)
        return failure(proposal, info) if calls[-1] == number else (proposal, info)

    return step


def raising(error):
    def failure(proposal, info):
        raise error

    return failure


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_objective_keeps_the_last_good_state(value):
    step = failing_at(7, lambda proposal, info: (proposal, StepInfo(objective=value)))
    outcome = run(step)
    assert outcome.status is Status.NON_FINITE
    assert outcome.num_steps == 7
    assert "step 7" in outcome.detail
    assert torch.equal(outcome.state["x"], run(walk, max_steps=7).state["x"])


@pytest.mark.parametrize(
    "error", [NotPositiveDefiniteError("pivot 3"), torch.linalg.LinAlgError("pivot 3")]
)
def test_lost_definiteness_keeps_the_last_good_state(error):
    outcome = run(failing_at(4, raising(error)))
    assert outcome.status is Status.NOT_PSD
    assert "pivot 3" in outcome.detail
    assert torch.equal(outcome.state["x"], run(walk, max_steps=4).state["x"])


def test_other_errors_propagate():
    with pytest.raises(ZeroDivisionError):
        run(failing_at(2, raising(ZeroDivisionError())))


def test_interrupt_returns_the_last_state_and_goes_on_from_there():
    outcome = run(failing_at(6, raising(KeyboardInterrupt())))
    assert outcome.status is Status.INTERRUPTED and outcome.num_steps == 6
    resumed = run(walk, start=outcome.checkpoint)
    whole = run(walk)
    assert torch.equal(resumed.state["x"], whole.state["x"])
    assert resumed.history["objective"] == whole.history["objective"]
    assert len(outcome.history["objective"]) == 6, "resuming must not change the earlier outcome"


def test_interrupt_writes_a_checkpoint_that_resumes(tmp_path):
    checkpointer = Checkpointer(tmp_path, "digest", every=100)
    run(failing_at(6, raising(KeyboardInterrupt())), checkpointer=checkpointer)
    resumed = run(walk, checkpointer=checkpointer, resume=True, seed=99)
    assert torch.equal(resumed.state["x"], run(walk).state["x"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), NotPositiveDefiniteError("mine")])
def test_interrupts_in_callbacks_end_the_fit_and_errors_propagate(error):
    class Failing:
        def start(self, max_steps, step):
            pass

        def step(self, step, state, info):
            if step == 6:
                raise error

        def finish(self, status):
            pass

    if not isinstance(error, KeyboardInterrupt):
        with pytest.raises(NotPositiveDefiniteError, match="mine"):
            run(walk, callbacks=[Failing()])
        return
    outcome = run(walk, callbacks=[Failing()])
    assert outcome.status is Status.INTERRUPTED
    assert outcome.num_steps == len(outcome.history["objective"]) == 6
    assert torch.equal(run(walk, start=outcome.checkpoint).state["x"], run(walk).state["x"])


def test_interrupt_while_recording_leaves_no_row_too_many(monkeypatch):
    record = loop._record

    def interrupted(history, info, seconds):
        record(history, info, seconds)
        if len(history["objective"]) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_record", interrupted)
    outcome = run(walk)
    assert outcome.status is Status.INTERRUPTED and outcome.num_steps == 4
    assert {len(column) for column in outcome.history.values()} == {4}


def test_max_steps():
    outcome = run(walk, max_steps=5)
    assert outcome.status is Status.MAX_STEPS and outcome.num_steps == 5


def test_fits_that_had_ended_do_not_go_on(tmp_path):
    def constant(state, generator):
        return state, StepInfo(objective=-1.0)

    checkpointer = Checkpointer(tmp_path, "digest", every=100)
    rule = RelativeChange(1e-6, patience=3)
    first = run(constant, stopping=rule, checkpointer=checkpointer)
    again = run(constant, stopping=rule, checkpointer=checkpointer, resume=True)
    assert first.status is again.status is Status.CONVERGED
    assert first.num_steps == again.num_steps == 4


def test_checkpoint_of_another_fit_is_refused(tmp_path):
    run(walk, checkpointer=Checkpointer(tmp_path, "one", every=5))
    with pytest.raises(CheckpointError, match="another fit"):
        run(walk, checkpointer=Checkpointer(tmp_path, "two", every=5), resume=True)


def test_damaged_checkpoint_is_reported(tmp_path):
    checkpointer = Checkpointer(tmp_path, "digest")
    checkpointer.path.write_bytes(b"no safetensors file")
    with pytest.raises(CheckpointError, match="cannot be read"):
        run(walk, checkpointer=checkpointer, resume=True)


def test_relative_change_looks_at_the_current_segment_only():
    rule = RelativeChange(1e-3, patience=2)
    flat = {"objective": [-1.0] * 5, "segment": [0.0, 0.0, 0.0, 1.0, 1.0]}
    assert segment_start(flat) == 3
    assert rule(flat) is None
    flat["objective"].append(-1.0)
    flat["segment"].append(1.0)
    assert rule(flat) is Status.CONVERGED
    assert rule({"objective": [-1.0, -1.0, -1.1], "segment": [0.0] * 3}) is None


def test_improvement_patience_waits_for_whole_windows():
    rule = ImprovementPatience(window=3, patience=2)
    flat = [-1.0] * 9
    for length in range(1, 10):
        history = {"objective": flat[:length], "segment": [0.0] * length}
        expected = Status.CONVERGED if length == 9 else None
        assert rule(history) is expected
    rising = [float(i) for i in range(30)]
    assert rule({"objective": rising, "segment": [0.0] * 30}) is None


def test_callbacks_see_every_step_and_the_end():
    class Recorder:
        def __init__(self):
            self.events = []

        def start(self, max_steps, step):
            self.events.append(("start", max_steps, step))

        def step(self, step, state, info):
            self.events.append((step, info.objective))

        def finish(self, status):
            self.events.append(("finish", status))

    recorder = Recorder()
    outcome = run(walk, max_steps=3, callbacks=[recorder])
    steps = list(enumerate(outcome.history["objective"], start=1))
    assert recorder.events == [("start", 3, 0), *steps, ("finish", Status.MAX_STEPS)]


@pytest.mark.parametrize("exact", [True, False])
def test_no_share_is_shown_of_a_limit_that_need_not_be_reached(exact, capsys):
    run_loop(
        lambda state, g: (state, StepInfo(1.0)),
        lambda g: {"x": torch.zeros(1)},
        max_steps=3,
        generator=torch.Generator(),
        callbacks=[Progress("fit", exact=exact)],
    )
    told = capsys.readouterr().err
    assert ("100%" in told, "3/3" in told) == (exact, exact) and "3" in told


def test_late_metrics_are_padded():
    def step(state, generator):
        number = float(state["x"][0]) + 1
        metrics = {"late": number} if number > 2 else {"early": number}
        return {"x": state["x"] + 1}, StepInfo(objective=number, metrics=metrics)

    history = run(step, max_steps=3).history
    assert history["early"][:2] == [1.0, 2.0] and math.isnan(history["early"][2])
    assert math.isnan(history["late"][1]) and history["late"][2] == 3.0
    assert {len(column) for column in history.values()} == {3}


def test_every_status_has_a_message_and_failures_a_remedy():
    for status in Status:
        assert status.message.endswith(".")
        assert status is Status.CONVERGED or status.remedy
    assert [s for s in Status if not s.ok] == [Status.NON_FINITE, Status.NOT_PSD]


def test_a_broken_step_is_retried_from_a_softened_state():
    def half(state):
        return {"x": state["x"] / 2}

    calls = []

    def step(state, generator):
        calls.append(float(state["x"][0]))
        proposal, info = walk(state, generator)
        broken = len(calls) in (4, 5)
        return proposal, StepInfo(math.nan) if broken else info

    outcome = run(step, max_steps=6, recovery=loop.Recovery(3, half))
    assert outcome.status is Status.MAX_STEPS and outcome.num_steps == 6
    assert calls[4] == calls[3] / 2 and calls[5] == calls[3] / 4
    assert [value for value in outcome.history["retries"] if value == value] == [2.0]
    assert len(calls) == 8


@pytest.mark.parametrize("error", [None, NotPositiveDefiniteError("pivot 3")])
def test_retries_end_and_the_last_good_state_is_unsoftened(error):
    def step(state, generator):
        if float(state["x"].abs().max()) > 0:
            if error is not None:
                raise error
            return state, StepInfo(math.inf)
        return walk(state, generator)

    seen = []

    def soften(state):
        seen.append(1)
        return {"x": state["x"] * 0.5}

    outcome = run(step, recovery=loop.Recovery(2, soften))
    assert outcome.status is (Status.NON_FINITE if error is None else Status.NOT_PSD)
    assert outcome.num_steps == 1 and len(seen) == 2
    assert torch.equal(outcome.state["x"], run(walk, max_steps=1).state["x"])


def test_seconds_are_a_budget_that_a_resume_can_raise():
    def slow(state, generator):
        proposal, info = walk(state, generator)
        start = time.process_time()
        while time.process_time() - start < 0.02:
            pass
        return proposal, info

    first = run(slow, max_steps=1000, stopping=SecondsBudget(0.1))
    assert first.status is Status.OUT_OF_TIME and 1 <= first.num_steps <= 6
    again = run(slow, max_steps=1000, stopping=SecondsBudget(0.1), start=first.checkpoint)
    assert again.num_steps == first.num_steps
    more = run(slow, max_steps=1000, stopping=SecondsBudget(0.2), start=first.checkpoint)
    assert more.num_steps > first.num_steps


def test_smoothed_change_ignores_noise_and_sees_a_rise():
    rule = SmoothedChange(tolerance=1e-2, window=10, patience=2)
    noise = [(-1) ** i * 0.5 for i in range(200)]
    level = [-10 + x for x in noise]
    assert rule({"objective": level[:29], "segment": [0.0] * 29}) is None
    assert rule({"objective": level[:30], "segment": [0.0] * 30}) is Status.CONVERGED
    rising = [-100 + i + x for i, x in enumerate(noise[:60])]
    assert rule({"objective": rising, "segment": [0.0] * 60}) is None
    assert rule({"objective": level[:30], "segment": [0.0] * 5 + [1.0] * 25}) is None


def test_the_first_rule_that_stops_decides():
    history = {"objective": [-1.0], "segment": [0.0], "seconds": [5.0], "gradient_norm": [1e-7]}
    rules = (GradientNorm(1e-6), SecondsBudget(1))
    assert FirstOf(rules)(history) is Status.CONVERGED
    assert FirstOf(rules[::-1])(history) is Status.OUT_OF_TIME
    assert FirstOf(rules)({**history, "seconds": [0.0], "gradient_norm": [1.0]}) is None
    assert GradientNorm(1.0)({"objective": [-1.0], "segment": [0.0]}) is None
