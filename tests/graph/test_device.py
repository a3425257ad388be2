"""A stage that was promised a GPU, on a machine without one."""

import pytest
from pydantic import ValidationError

from tests.conftest import Pipeline
from tl_dagster.graph.device import choose_device
from tl_dagster.graph.stages.evaluation import Evaluation
from tl_dagster.runtime.hardware import has_gpu

pytestmark = pytest.mark.skipif(has_gpu(), reason="there is a GPU here")


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        ({"compute": {"device": "cuda:3"}}, "compute.device cuda:3"),
        ({"resources": {"gpu": {"gpus": 1}}}, "resources.gpu.gpus 1"),
    ],
)
def test_it_stops_before_its_work_and_says_the_mend(pipeline: Pipeline, declared, named):
    failed = pipeline.run(raise_on_error=False, upto="bottleneck_features", **declared)
    (event,) = failed.get_failed_step_keys() and [
        each for each in failed.all_events if each.is_step_failure and "bottleneck_features" in each.step_key
    ]
    message = event.step_failure_data.user_failure_data.description
    assert message.startswith(f"{named} is declared")
    assert "compute.missing_device: cpu" in message


def test_it_falls_back_where_that_is_declared_and_says_so(pipeline: Pipeline):
    compute, resources = {"missing_device": "cpu"}, {"gpu": {"gpus": 1}}
    # Precision auto means that of the GPU, so that stages outside of the pool read the same features.
    assert pipeline.run(compute=compute, resources=resources, fine_tuning={"depth": "none"}).success
    stage = Evaluation(pipeline.declaration(compute=compute, resources=resources), pipeline.store.root)
    assert choose_device(stage, lambda line: pytest.fail(line)).expected == "cuda"
    lines = []
    stage.gpu = True
    assert choose_device(stage, lines.append).name == "cpu"
    assert lines == [
        "resources.gpu.gpus 1 is declared, and the GPU cuda is not here: it runs on the CPU (compute.missing_device)"
    ]


def test_contradictions_are_refused(pipeline: Pipeline):
    with pytest.raises(ValidationError, match=r"compute.device 'cpu' has no use for resources.gpu.gpus 2"):
        pipeline.declaration(compute={"device": "cpu"}, resources={"gpu": {"gpus": 2}})
    with pytest.raises(ValidationError, match="device"):
        pipeline.declaration(compute={"device": "gpu"})
