"""The asset graph: one module per asset, in graph order."""

from tl_dagster.graph.stage import Stage, StageContext
from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
from tl_dagster.graph.stages.bottleneck_features import BottleneckFeatures
from tl_dagster.graph.stages.champion import Champion
from tl_dagster.graph.stages.dataset import Dataset
from tl_dagster.graph.stages.evaluation import Evaluation
from tl_dagster.graph.stages.fine_tuned_model import FineTunedModel
from tl_dagster.graph.stages.scratch_baseline import ScratchBaseline
from tl_dagster.graph.stages.strategy_verification import StrategyVerification
from tl_dagster.graph.stages.top_model import TopModel
from tl_dagster.graph.stages.transfer_strategy import TransferStrategy

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
    Champion,
)
