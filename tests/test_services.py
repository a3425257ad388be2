"""Processes killed (kill -9) beside a webserver and a daemon: the run ends, nothing is held, the next goes on."""

import random

from benchmarks.harness.killed_processes import STEPS, Kills, finish_run, held_slots, kill_one
from benchmarks.harness.projects import declare_again, make_project
from benchmarks.harness.services import Services


def test_killed_processes(tmp_path):
    project, found, chance = make_project(tmp_path, 20), Kills(), random.Random(0)  # noqa: S311
    declare_again(project, STEPS, compute={"executor": "multiprocess"})
    with Services(project) as services, project.instance() as instance:
        for number, victim in enumerate(("daemon", "step"), 1):
            while found.kills < number:  # a run may end before it is killed
                kill_one(project, services, instance, chance, found, victim)
        finish_run(services, instance, STEPS)
        assert held_slots(instance) == 0
    assert not found.orphans
    assert max(found.seconds, default=0) < 60
