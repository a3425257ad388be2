"""Training of one network from random weights: which views it sees."""

from functools import partial

import numpy as np
import pytest

from tests.graph.test_scratch_baseline import SMALL, run
from tl_dagster.data.augmentation import Augmenter
from tl_dagster.data.decoding import read_verified
from tl_dagster.data.manifest import read_manifest
from tl_dagster.data.splits import read_views
from tl_dagster.data.views import views_to_draw
from tl_dagster.features.loading import Loader
from tl_dagster.training.batches import DrawnViews
from tl_dagster.training.scratch_architectures import declared_architectures
from tl_dagster.training.scratch_model import draw_in_turn


@pytest.mark.parametrize(("preset", "views"), [("lecture", [0, 1, 2, 3, 4]), ("dihedral", [0, 1, 2, 0, 1])])
def test_an_epochs_views(pipeline, preset, views):
    augmentation = {"preset": preset, "views": 3}
    changes = {"augmentation": augmentation, "scratch_baseline": {**SMALL, "architectures": ["convnet"], "epochs": 1}}
    stage, context, _ = run(pipeline, **changes)
    table = read_views(context.inputs["augmented_splits"].path)
    wanted = views_to_draw(table, read_manifest(context.inputs["dataset"].path))
    declared = stage.declaration
    (architecture,) = declared_architectures(declared.scratch_baseline, declared.backbone)
    augmenter, first = Augmenter(declared.augmentation), wanted[0]
    plain = architecture.resize(read_verified(first.uri, first.image_id))
    with Loader(architecture.resize, augmenter, batch_size=8) as loader:
        images = DrawnViews(wanted, loader, partial(draw_in_turn, declared.augmentation))
        for epoch, view in enumerate(views, 1):
            (pixels,) = next(images(np.array([0]), epoch))
            assert np.array_equal(pixels, augmenter.draw(plain, first.image_id, view))
