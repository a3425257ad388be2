"""A file of declarations that cannot be loaded takes away its own pipeline alone, and says why where people look."""

import shutil

import dagster as dg
import pytest

from tests.cli.test_cli import call
from tl_dagster.graph.project import find_project

HEAD = "type: tl_dagster.TransferLearning\nattributes:\n  name: first\n  source: {kind: folder, path: photos}\n"
BROKEN = {
    "unknown field": (f"{HEAD}  fine_tunning: {{}}\n", ":5: unknown field 'fine_tunning': did you mean 'fine_tuning'"),
    "unknown field in a section": (f"{HEAD}  splits:\n    tets: 1\n", ":6: splits: unknown field 'tets': did you mean"),
    "unknown field of the file": (f"{HEAD}atributes: {{}}\n", ":5: unknown field 'atributes': did you mean"),
    "value out of bounds": (f"{HEAD}  splits: {{test: 1.5}}\n", ":5: splits.test: Input should be"),
    "missing field": (HEAD.replace("  source: {kind: folder, path: photos}\n", ""), ":2: 'source' is missing"),
    "variable not set": (HEAD.replace("photos", "'{{ env.NOWHERE }}'"), ":4: source.path: the environment variable"),
    "field twice": (f"{HEAD}  splits: {{seed: 1}}\n  splits: {{seed: 2}}\n", ":6: 'splits' is written twice"),
    "number as field": (f"{HEAD}  7: x\n", ":5: unknown field '7'"),
    "not YAML": (f"{HEAD}  splits: [\n", ":6: not YAML: "),
    "tab": (f"{HEAD}\tsplits: x\n", ":5: not YAML: found character"),
    "not UTF-8": (HEAD.encode() + b"  description: \xe9t\xe9\n", ": is not UTF-8 text"),
    "empty": ("", ": is empty: write 'type: tl_dagster.TransferLearning'"),
    "only a comment": ("# later\n", ": is empty: write 'type: tl_dagster.TransferLearning'"),
    "a list": ("- first\n", ":1: 'type: tl_dagster.TransferLearning' and 'attributes' are expected"),
    "no type": (HEAD.partition("\n")[2], ":1: 'type' is missing"),
    "wrong type": (HEAD.replace("Learning", "Lerning"), ":1: type: 'tl_dagster.TransferLerning' is not"),
    "type of another kind": (HEAD.replace("TransferLearning", "Declaration"), ":1: type: 'tl_dagster.Declaration' is"),
    "no attributes": ("type: tl_dagster.TransferLearning\n", ":1: 'attributes' with a name and a source are missing"),
    "attributes as a list": ("type: tl_dagster.TransferLearning\nattributes: [first]\n", ":2: attributes: fields are"),
    "post-processing": (f"{HEAD}post_processing: {{assets: [{{}}]}}\n", ": "),
}  # fmt: skip


def get_broken(job_names=("second",)):
    """The assets that say what is broken; the other pipelines are there."""
    (repository,) = find_project().repositories
    definition = repository.definition
    assert set(definition.job_names) - {"__ASSET_JOB"} == set(job_names)
    found = {key.to_user_string(): asset for key, asset in definition.assets_defs_by_key.items()}
    return {name: asset for name, asset in found.items() if "broken" in name}


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_takes_away_its_pipeline_alone(project_here, text, words):
    path = project_here / "assets" / "first" / "defs.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    broken = get_broken()
    assert set(broken) == {"first/broken"}
    (description,) = broken["first/broken"].descriptions_by_key.values()
    assert description.startswith(f"assets/first/defs.yaml{words}") and "\n" not in description
    with pytest.raises(dg.Failure, match=r"^assets/first/defs\.yaml"), dg.instance_for_test() as instance:
        dg.materialize([broken["first/broken"]], instance=instance)


def test_a_name_used_twice_names_both_files(project_here):
    shutil.copytree(project_here / "assets" / "first", project_here / "assets" / "third")
    lines = [next(iter(asset.descriptions_by_key.values())) for asset in get_broken().values()]
    assert sorted(lines) == [
        "assets/first/defs.yaml:4: name: 'first' is also declared in assets/third/defs.yaml:4: rename one",
        "assets/third/defs.yaml:4: name: 'first' is also declared in assets/first/defs.yaml:4: rename one",
    ]


def test_one_of_several_pipelines_of_a_file(project_here):
    path = project_here / "assets" / "first" / "defs.yaml"
    other = HEAD.replace("first", "third")
    path.write_text(f"{HEAD}---\n{other}  fine_tunning: {{}}\n")
    broken = get_broken(["first", "second"])
    (description,) = broken["first/broken_2"].descriptions_by_key.values()
    assert description.startswith("assets/first/defs.yaml:10: unknown field 'fine_tunning'")


def test_python_files_and_folders_beside_a_broken_file(project_here):
    (project_here / "assets" / "first" / "defs.yaml").write_text("a: [")
    (project_here / "assets" / "team").mkdir()
    (project_here / "assets" / "second").rename(project_here / "assets" / "team" / "second")
    (project_here / "assets" / "more.py").write_text("import dagster as dg\n\n\n@dg.asset\ndef more(): ...\n")
    (project_here / "assets" / "bad.py").write_text("import nowhere\n")
    assert set(get_broken()) == {"first/broken", "bad.py/broken"}
    (repository,) = find_project().repositories
    assert dg.AssetKey("more") in repository.definition.assets_defs_by_key


def test_the_command_says_one_line_and_others_go_on(project):
    path = project / "assets" / "first" / "defs.yaml"
    path.write_text(f"{HEAD}  fine_tunning: {{}}\n")
    said = call(project, "tl-dagster", "run", "first", check=False)
    assert said.startswith(
        "tl-dagster: assets/first/defs.yaml:5: unknown field 'fine_tunning': did you mean 'fine_tuning'?"
    )
    assert len(said.splitlines()) == 1
    assert "first/broken" in call(project, "dg", "list", "defs", "--json")
    said = call(project, "dg", "check", "defs", check=False)
    assert "assets/first/defs.yaml:5: unknown field 'fine_tunning'" in said and "loaded successfully" not in said
