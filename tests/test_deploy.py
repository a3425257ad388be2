"""The instances that are shipped load, and do what their comments say, on real databases."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._config import process_config
from dagster._core.definitions.run_request import InstigatorType
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
