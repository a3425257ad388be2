"""The lint that names stages whose code changed while their version stayed."""

import copy

from tools.code_versions import compare, describe, digest_source

SOURCE = '''
"""A module."""

def double(number):
    """Return twice a number."""
    return 2 * number
'''


def test_comments_docstrings_and_places_do_not_count():
    same = SOURCE.replace("Return twice", "Double").replace("    return 2 *", "\n    # twice\n    return (2) *")
    assert digest_source(SOURCE) == digest_source(same)
    assert digest_source(SOURCE) != digest_source(SOURCE.replace("2 *", "3 *"))


def test_a_changed_module_is_named_for_each_stage_that_uses_it():
    now = describe()
    assert compare(now, now) == []
    before = copy.deepcopy(now)
    before["modules"]["tl_dagster.evaluation.metrics"] = "another"
    (line,) = compare(before, now)
    assert line.startswith("evaluation: version") and "tl_dagster.evaluation.metrics" in line
    before["stages"]["evaluation"]["version"] -= 1  # bumped since
    assert compare(before, now) == []
    before["modules"]["tl_dagster.data.labels"] = "another"
    assert len(compare(before, now)) > 3


def test_modules_imported_inside_functions_count():
    modules = describe()["stages"]["top_model"]["modules"]
    assert "tl_dagster.training.logistic_regression" in modules
    assert not any(module.startswith("tl_dagster.reporting") for module in modules)
