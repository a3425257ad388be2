"""What steps ask a cluster for."""

import json

import dagster as dg

from tests.conftest import Pipeline


def test_each_kind_of_stage_asks_for_what_is_declared(pipeline: Pipeline):
    declared = {
        "gpu": {"gpus": 1, "cpus": 4, "memory": "16Gi", "tags": {"dagster-celery/queue": "gpu"}},
        "cpu": {"memory": "512Mi"},
    }
    definitions = pipeline.definitions(resources=declared)
    job = definitions.resolve_job_def("cells")
    tags = {name: job.get_node_named(f"cells__{name}").definition.tags for name in ("dataset", "bottleneck_features")}
    kubernetes = json.loads(tags["bottleneck_features"]["dagster-k8s/config"])["container_config"]["resources"]
    assert kubernetes["limits"] == kubernetes["requests"] == {"nvidia.com/gpu": "1", "cpu": "4", "memory": "16Gi"}
    ray = json.loads(tags["bottleneck_features"]["dagster-ray/config"])
    assert ray == {"num_gpus": 1, "num_cpus": 4, "memory": 16 * 2**30}
    assert tags["bottleneck_features"]["dagster-celery/queue"] == "gpu"
    assert json.loads(tags["dataset"]["dagster-ray/config"]) == {"memory": 512 * 2**20}
    assert "tl_dagster/device" not in tags["dataset"]


def test_nothing_is_asked_for_by_default(pipeline: Pipeline):
    job = pipeline.definitions().resolve_job_def("cells")
    assert not {each for each in job.get_node_named("cells__dataset").definition.tags if each.startswith("dagster-")}
    assert isinstance(job, dg.JobDefinition)
