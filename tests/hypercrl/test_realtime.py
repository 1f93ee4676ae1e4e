import time

from hypercrl.agent.realtime import Pacer, deadlines_met, latency_report


def test_a_deadline_is_the_period_of_the_control_rate():
    seconds = [0.005, 0.010, 0.015, 0.030, 0.060, 0.200]
    assert deadlines_met(seconds) == {10: 5, 20: 4, 50: 3, 100: 2}


def test_the_report_counts_and_measures_in_milliseconds():
    report = latency_report([0.004, 0.006, 0.030])
    assert "deadlines met by 3 plans: 10 Hz 3 (100%), 20 Hz 3 (100%), 50 Hz 2 (67%)" in report
    assert "median 6.00 ms" in report
    assert report.endswith("all within 30.00 ms")


def test_ticks_come_at_the_rate_and_a_late_one_shifts_those_that_follow(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    pacer, ticks = Pacer(10), []
    for work in (0.0, 0.03, 0.25, 0.0, 0.0):
        clock[0] += work
        pacer.wait()
        ticks.append(round(clock[0] - 100, 6))
    assert ticks == [0.0, 0.1, 0.35, 0.45, 0.55]
