"""The public names, and what importing, loading definitions and the command line load: each in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

import tl_dagster

LEARNING = ("torch", "torchvision", "timm", "albumentations", "cv2", "matplotlib", "sklearn", "scipy")
TABLES = ("numpy", "pandas", "pyarrow")


def loaded_by(code: str, folder=None) -> set[str]:
    """The modules that code loads; its output goes nowhere."""
    report = "import json, sys; sys.stderr.write('\\n' + json.dumps(sorted(sys.modules)))"
    command = f"import atexit; atexit.register(lambda: exec({report!r}))\n{code}"
    environment = {**os.environ, "PYTHONPATH": str(folder)} if folder else None
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_exported_names():
    assert set(tl_dagster.__all__) == {
        "ArtifactIOManager", "ArtifactStore", "Declaration", "ImageClassifier", "InputError", "TransferLearning",
        "__version__", "build_definitions", "load_definitions",
    }  # fmt: skip
    for name in tl_dagster.__all__:
        assert getattr(tl_dagster, name) is not None
    with pytest.raises(AttributeError, match="'TransferLearner'"):
        tl_dagster.TransferLearner  # noqa: B018


def test_importing_loads_neither_dagster_nor_torch():
    loaded = loaded_by("import tl_dagster; tl_dagster.InputError; tl_dagster.ArtifactStore")
    assert not loaded & {"dagster", "pydantic", "click", *LEARNING, *TABLES}


def test_dagsters_registry_loads_no_torch():
    loaded = loaded_by(
        "from dagster.components.core.package_entry import discover_entry_point_package_objects as discover\n"
        "assert 'tl_dagster.TransferLearning' in {key.to_typename() for key in discover()}"
    )
    assert not loaded & {*LEARNING, *TABLES}


def test_loading_definitions_loads_no_torch(project):
    code = "from tl_dagster.definitions import defs; assert len(list(defs().resolve_all_job_defs())) > 2"
    loaded = loaded_by(code, project)
    assert "dagster" in loaded and not loaded & {*LEARNING, *TABLES}


def test_help_is_light():
    loaded = loaded_by("from tl_dagster.cli.main import main; main(['--help'])")
    assert "tl_dagster.cli.run" in loaded and not loaded & {"dagster", "pydantic", "rich", *LEARNING, *TABLES}


def test_show_and_stats_load_neither_dagster_nor_torch(pipeline):
    assert pipeline.run(upto="bottleneck_features").success
    for arguments in (["show", "cells"], ["show", "cells", "--json"], ["cache", "stats"]):
        loaded = loaded_by(f"from tl_dagster.cli.main import main; main({arguments})")
        assert not loaded & {"dagster", *LEARNING}
    assert not loaded_by("from tl_dagster.cli.main import main; main(['show', 'cells'])") & {*TABLES}
