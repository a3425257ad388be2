"""Commands look for the instance on the disk."""

import dagster as dg
import pytest

from tests.conftest import Pipeline


@pytest.fixture
def pipeline(store, photos):
    with dg.instance_for_test() as instance:  # DAGSTER_HOME names it
        yield Pipeline(store, instance, photos)
