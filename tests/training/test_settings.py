"""Fine-tuning's open settings are filled in; declared ones stay; the default ones fit each other."""

from tl_dagster.strategy.decision import CELLS
from tl_dagster.training.scratch import WARMUP
from tl_dagster.training.settings import FineTuning, ScratchBaseline, resolve_fine_tuning


def test_open_settings_are_filled_in():
    settings = resolve_fine_tuning(FineTuning(mixup=0.2), "all", 7, 5e-5)
    assert (settings.depth, settings.epochs, settings.learning_rate, settings.mixup) == ("all", 7, 5e-5, 0.2)


def test_declared_settings_stay():
    declared = FineTuning(depth="top", epochs=3, learning_rate=1e-3)
    assert resolve_fine_tuning(declared, "all", 7, 5e-5).model_dump() == declared.model_dump()


def test_default_early_stopping_can_save_half_of_the_time():
    tuning, scratch = FineTuning(), ScratchBaseline()
    for epochs, warmup, patience in [
        *((cell.epochs, tuning.warmup, tuning.patience) for cell in CELLS.values()),
        (scratch.epochs, WARMUP, scratch.patience),
    ]:
        assert patience and warmup * epochs + patience <= epochs / 2
