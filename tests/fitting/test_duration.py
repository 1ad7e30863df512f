"""How long work will take: told once, from the first steps, on a clock of our own."""

from __future__ import annotations

import pytest
from builders import fast

from hist2scrna.fitting import duration
from hist2scrna.fitting.duration import Duration, spoken
from hist2scrna.tl import fit, predict


@pytest.fixture
def clock(monkeypatch):
    """Seconds that tests set; each look at the clock takes as long as `tick`."""

    class Clock:
        now, tick = 0.0, 0.0

        def __call__(self):
            self.now += self.tick
            return self.now

    clock = Clock()
    monkeypatch.setattr(duration, "perf_counter", clock)
    return clock


def lines(caplog):
    return [r.getMessage() for r in caplog.records if r.name == duration.__name__]


def test_the_first_step_does_not_count_where_others_tell_more(clock, caplog):
    caplog.set_level("INFO", "hist2scrna")
    work = Duration("encoding 100 spots", 100)
    # The first step takes 14 s, the others 0.5 s each: 14 s + 99 of these are 63.5 s.
    for done in range(1, 101):
        clock.now = 14 + 0.5 * (done - 1)
        work.step(done)
    assert lines(caplog) == ["encoding 100 spots: about 64 s"]


def test_slow_steps_are_told_after_the_first(clock, caplog):
    caplog.set_level("INFO", "hist2scrna")
    work = Duration("encoding 786 spots", 786)
    clock.now = 64.0
    work.step(64)
    assert lines(caplog) == ["encoding 786 spots: about 13 min"]


@pytest.mark.parametrize("seconds", [0.01, 0.07])
def test_short_work_is_not_talked_of(clock, caplog, seconds):
    caplog.set_level("INFO", "hist2scrna")
    work = Duration("encoding 100 spots", 100)
    for done in range(1, 101):
        clock.now = seconds * done
        work.step(done)
    assert lines(caplog) == []


@pytest.mark.parametrize(
    ("seconds", "words"), [(8.4, "8.4 s"), (61, "61 s"), (786, "13 min"), (5000, "83 min"), (9000, "2.5 h")]
)
def test_durations_in_words(seconds, words):
    assert spoken(seconds) == words


def test_fit_and_predict_say_what_they_do_and_for_how_long(make_section, clock, caplog):
    caplog.set_level("INFO", "hist2scrna")
    clock.tick = 30.0
    model = fit(make_section(), **fast(max_epochs=3))
    said = [record.getMessage() for record in caplog.records]
    what = "fitting 'hist2scrna' to 12 genes in 40 spots of 72 um (s0) on cpu, 3 epochs at most in batches of 64"
    assert said.count(what) == 1
    time = "training for 3 epochs, or fewer, on cpu: about 1.5 min"
    assert said.index(what) < said.index(time)
    caplog.clear()
    predict(make_section(), model, batch_size=10, accelerator="cpu", progress=False)
    said = [record.getMessage() for record in caplog.records]
    what = "predicting 12 genes with 'hist2scrna' in 40 spots of 72 um (s0) on cpu"
    assert said.index(what) < said.index("encoding 40 spots on cpu: about 2 min")
