"""The judgement of a newly trained model: against the model in service, or, while there is none, against the least."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tl_dagster.data.manifest import read_groups
from tl_dagster.evaluation.promotion import PairedGain, level_of_comparison, measure_gain
from tl_dagster.evaluation.settings import Promotion
from tl_dagster.models.predictions import read_predictions
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.digests import digest, digest_columns

__all__ = ["Challenger", "Judgement"]


@dataclass(frozen=True)
class Judgement:
    """The outcome of judging a model.

    Attributes:
        promoted: whether it goes into service.
        reason: one sentence, with the numbers.
        numbers: of the comparison; none where nothing could be compared.
    """

    promoted: bool
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


class Challenger:
    """A newly trained model, and its predictions of the test images.

    Args:
        model: folder of its artifact.
        dataset: folder of the dataset artifact, which has the groups of the images.
        settings: of the promotion.

    Raises:
        InputError: the test split has no image.
    """

    def __init__(self, model: Path, dataset: Path, settings: Promotion) -> None:
        self.settings, self._dataset = settings, dataset
        self._rows = _read_test(model)
        if self._rows.empty:
            raise InputError("the test split has no image: declare a larger splits.test, or add images")

    def identify(self, fingerprint: str) -> str:
        """Return a digest of the challenge: of the model under a fingerprint, the test images, and the settings."""
        images = digest_columns(self._rows[["label"]].reset_index().sort_values("id"))
        return digest([fingerprint, images, self.settings.confidence, self.settings.margin])

    def against_champion(self, champion: Path, number: int) -> Judgement:
        """Judge it against the model in service, on the test images of both.

        Args:
            champion: folder of its artifact.
            number: which comparison with this champion it is, from 1 on.
        """
        rows = self._rows.join(_read_test(champion)["predicted"].rename("champion"), how="inner")
        if rows.empty:
            return Judgement(
                False,
                "the champion stays: no test image of now was one when it was trained, so the two cannot be compared; "
                "put the new model in service by hand, with tl-dagster promote",
            )
        gain = self._compare(rows, rows["predicted"], rows["champion"], number)
        promoted = gain.exceeds(self.settings.margin)
        return Judgement(promoted, self._describe(gain, promoted, len(self._rows) - len(rows)), _numbers(gain))

    def as_first(self, top_model: Path, number: int) -> Judgement:
        """Judge it while no model is in service: by the majority class, and by the top model.

        It has to be surely better than the one, and not surely worse than the other.

        Args:
            top_model: folder of the artifact that it was trained on from.
            number: how many were tried so far, with this one.
        """
        rows = self._rows.join(_read_test(top_model)["predicted"].rename("top_model"), how="inner")
        majority = str(rows["label"].mode()[0])
        gain = self._compare(rows, rows["predicted"], pd.Series(majority, rows.index), number)
        numbers = _numbers(gain)
        if not gain.exceeds(0):
            return Judgement(
                False,
                f"no model is in service: accuracy {gain.first_accuracy:.3f} is not surely more than the "
                f"{gain.second_accuracy:.3f} of always answering '{majority}' ({_confidence(gain)}); add test images, "
                "or improve the model",
                numbers,
            )
        worse = self._compare(rows, rows["top_model"], rows["predicted"], number)
        if worse.exceeds(0):
            return Judgement(
                False,
                f"no model is in service: accuracy {gain.first_accuracy:.3f} is surely less than the top model's "
                f"{worse.first_accuracy:.3f} ({_confidence(worse)})",
                numbers,
            )
        return Judgement(
            True,
            f"the first champion: accuracy {gain.first_accuracy:.3f} on {gain.images:,} test images, against "
            f"{gain.second_accuracy:.3f} of always answering '{majority}'",
            numbers,
        )

    def _compare(self, rows: pd.DataFrame, first: pd.Series, second: pd.Series, number: int) -> PairedGain:
        groups = read_groups(self._dataset, pd.Series(rows.index))
        level = level_of_comparison(self.settings.confidence, number)
        truth = rows["label"]
        return measure_gain((first == truth).to_numpy(), (second == truth).to_numpy(), groups, level)

    def _describe(self, gain: PairedGain, promoted: bool, left_out: int) -> str:
        images = f"the same {gain.images:,} test images"
        if left_out:
            images += f" ({left_out:,} more were no test images when the champion was trained)"
        accuracies = f"accuracy {gain.first_accuracy:.3f} against {gain.second_accuracy:.3f} on {images}"
        points = f"{100 * gain.gain:+.1f} points, surely more than {100 * gain.low:+.1f} ({_confidence(gain)})"
        wanted = f"wanted: more than {100 * self.settings.margin:+.1f}"
        if promoted:
            return f"promoted: {accuracies}; {points}"
        if gain.low > self.settings.margin:  # a handful of images
            wanted = f"of {gain.only_first + gain.only_second:,} images that differ, too few to be sure"
        return f"the champion stays: {accuracies}; {points}; {wanted}"


def _confidence(gain: PairedGain) -> str:
    return f"{100 * (1 - gain.level):.4g} % confidence"


def _numbers(gain: PairedGain) -> dict[str, float]:
    return {
        "test_accuracy": gain.first_accuracy,
        "compared_accuracy": gain.second_accuracy,
        "gain": gain.gain,
        "gain_at_least": gain.low,
        "p_value": gain.p_value,
        "level": gain.level,
        "compared_images": gain.images,
        "compared_groups": gain.groups,
        "only_new_right": gain.only_first,
        "only_compared_right": gain.only_second,
    }


def _read_test(model: Path) -> pd.DataFrame:
    """Return id, label and predicted of a model's test images."""
    return read_predictions(model, "test")[0][["id", "label", "predicted"]].set_index("id")
