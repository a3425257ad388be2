"""Gates and automation in any order of events: nothing below a failed gate, each change handled once, then rest."""

from hypothesis import HealthCheck, settings

from benchmarks.harness.interleavings import Interleaving

TestInterleavings = Interleaving.TestCase
TestInterleavings.settings = settings(
    max_examples=8,
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
