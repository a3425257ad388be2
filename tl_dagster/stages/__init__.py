"""The asset graph: one module per asset, in graph order."""

from tl_dagster.stages.augmented_splits import AugmentedSplits
from tl_dagster.stages.base import Stage, StageContext
from tl_dagster.stages.bottleneck_features import BottleneckFeatures
from tl_dagster.stages.dataset import Dataset
from tl_dagster.stages.evaluation import Evaluation
from tl_dagster.stages.fine_tuned_model import FineTunedModel
from tl_dagster.stages.scratch_baseline import ScratchBaseline
from tl_dagster.stages.strategy_verification import StrategyVerification
from tl_dagster.stages.top_model import TopModel
from tl_dagster.stages.transfer_strategy import TransferStrategy

__all__ = ["STAGES", "Stage", "StageContext"]

STAGES: tuple[type[Stage], ...] = (
    Dataset,
    AugmentedSplits,
    BottleneckFeatures,
    TransferStrategy,
    TopModel,
    FineTunedModel,
    ScratchBaseline,
    StrategyVerification,
    Evaluation,
)
