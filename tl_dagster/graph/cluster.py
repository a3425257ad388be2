"""What the steps of a pipeline ask a cluster for, as the tags that Dagster's launchers and executors read."""

from typing import Any

from tl_dagster.declaration import StageResources
from tl_dagster.graph.stage import Stage
from tl_dagster.graph.tags import GPU_TAG

__all__ = ["step_tags"]

UNITS = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def step_tags(stage: Stage) -> dict[str, Any] | None:
    """Return the tags of a stage's step; None: it has none.

    ``dagster-k8s/config`` is read by dagster-k8s (limits and requests of the container), ``dagster-ray/config`` by
    dagster-ray. Celery's queue is one of the declared tags.
    """
    declared = stage.declaration.resources
    resources = declared.gpu if stage.gpu else declared.cpu
    tags = {**(GPU_TAG if stage.gpu else {}), **_kubernetes(resources), **_ray(resources), **resources.tags}
    return tags or None


def _kubernetes(resources: StageResources) -> dict[str, Any]:
    limits = {
        "nvidia.com/gpu": resources.gpus and str(resources.gpus),
        "cpu": resources.cpus and f"{resources.cpus:g}",
        "memory": resources.memory,
    }
    asked = {name: value for name, value in limits.items() if value}
    if not asked:
        return {}
    return {"dagster-k8s/config": {"container_config": {"resources": {"limits": asked, "requests": asked}}}}


def _ray(resources: StageResources) -> dict[str, Any]:
    amounts = {
        "num_gpus": resources.gpus,
        "num_cpus": resources.cpus,
        "memory": resources.memory and int(resources.memory[:-2]) * UNITS[resources.memory[-2:]],
    }
    asked = {name: value for name, value in amounts.items() if value is not None}
    return {"dagster-ray/config": asked} if asked else {}
