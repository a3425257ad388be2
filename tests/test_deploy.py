"""The instances that are shipped load, and do what their comments say, on real databases."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import kubernetes.client
import pytest
import yaml
from dagster._config import process_config
from dagster._core.definitions.run_request import InstigatorType
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import get_user_defined_k8s_config
from dagster_postgres.utils import pg_config

from benchmarks.harness.postgresql import postgresql

DEPLOY = Path(__file__).parent.parent / "deploy"


@pytest.mark.parametrize("name", ["local", "postgres"])
def test_instance(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copy(DEPLOY / name / "dagster.yaml", tmp_path)
    if name == "local":
        check(tmp_path)
        return
    settings = yaml.safe_load((tmp_path / "dagster.yaml").read_text())
    declared = settings["storage"]["postgres"]
    for variable in ("HOST", "DB", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"DAGSTER_PG_{variable}", "dagster")
    monkeypatch.setenv("DAGSTER_PG_PORT", "5432")
    assert process_config(pg_config(), declared).success
    assert declared["postgres_db"]["scheme"] == "postgresql+psycopg2"
    with postgresql() as server:
        settings["storage"]["postgres"] = {"postgres_url": server}  # it has no port
        (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
        check(tmp_path)


def check(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        pools = instance.get_concurrency_config().pool_config
        assert (pools.default_pool_limit, pools.pool_granularity.value) == (1, "op")
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled
        assert instance.get_runs() == []
        assert instance.get_tick_retention_settings(InstigatorType.SENSOR)


KUBERNETES = DEPLOY / "kubernetes"
PROGRAMS = Path(sys.executable).parent


def snake(values):
    """The names of a dagster.yaml for those of the chart."""
    if isinstance(values, dict):
        return {
            re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", name): snake(each) for name, each in values.items()
        }
    return values


def test_the_dockerfile_has_no_fault():
    done = subprocess.run([PROGRAMS / "hadolint", KUBERNETES / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_chart_gets_what_dagster_and_kubernetes_accept(tmp_path):
    values = yaml.safe_load((KUBERNETES / "values.yaml").read_text())
    daemon, launcher = values["dagsterDaemon"], values["runLauncher"]["config"]["k8sRunLauncher"]
    declared = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": "/opt/dagster",
    }
    declared |= {name: each for name, each in snake(launcher).items() if name != "run_k8s_config"}
    declared["run_k8s_config"] = {"pod_spec_config": launcher["runK8sConfig"]["podSpecConfig"]}
    found = process_config(K8sRunLauncher.config_type(), declared)
    assert found.success, found.errors
    assert set(launcher["runK8sConfig"]["podSpecConfig"]) <= set(kubernetes.client.V1PodSpec.openapi_types)

    instance = {
        **values["additionalInstanceConfig"],
        "telemetry": values["telemetry"],
        "run_monitoring": snake(daemon["runMonitoring"]),
        "run_retries": snake(daemon["runRetries"]),
        "retention": snake({name: values["retention"][name] for name in ("schedule", "sensor")}),
    }
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance))
    check(tmp_path)


def test_kubernetes_accepts_the_volume_and_the_code_server(tmp_path):
    (server,) = yaml.safe_load((KUBERNETES / "values.yaml").read_text())["dagster-user-deployments"]["deployments"]
    (claim,) = yaml.safe_load_all((KUBERNETES / "store.yaml").read_text())
    assert server["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert "resources" not in server  # runs would get them, instead of those of the launcher
    container = {name: server[name] for name in ("env", "volumeMounts")}
    image = server["image"]
    container |= {
        "name": server["name"],
        "image": f"{image['repository']}:{image['tag']}",
        "args": server["codeServerArgs"],
    }
    pod = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {
            "containers": [container],
            "volumes": server["volumes"],
            "securityContext": server["podSecurityContext"],
        },
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": server["name"]},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": pod},
    }
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all([claim, deployment]))
    command = [PROGRAMS / "kubernetes-validate", "--strict", file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_steps_ask_kubernetes_in_its_own_words(pipeline):
    resources = {"gpu": {"gpus": 1, "cpus": 4, "memory": "16Gi"}}
    job = pipeline.definitions(resources=resources).resolve_job_def("cells")
    tags = job.get_node_named("cells__bottleneck_features").definition.tags
    asked = get_user_defined_k8s_config(tags).container_config["resources"]
    assert asked["limits"] == asked["requests"] == {"nvidia.com/gpu": "1", "cpu": "4", "memory": "16Gi"}
