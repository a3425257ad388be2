"""Explanations of a frozen backbone: a map of its features, and the images that activate its channels most."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from tl_dagster.features.cache import ConcatFeatures
from tl_dagster.reporting.figures import INK, SOFT, new_figure, save_png, short_name
from tl_dagster.reporting.fonts import Letters
from tl_dagster.reporting.sheets import GAP, LINE, save_jpeg, tile

__all__ = ["feature_map", "strongest_channels", "top_activating_images"]

MOST_POINTS = 1_000
FEWEST_POINTS = 30  # of fewer, t-SNE shows structure that only its perplexity makes
COMPONENTS, PERPLEXITY, ITERATIONS = 50, 30, 500
NEIGHBOURS = 10
# The "muted" scheme: nine colours that colour-blind readers tell apart (P. Tol, "Colour schemes", SRON, 2021).
COLORS = ("#332288", "#cc6677", "#117733", "#88ccee", "#aa4499", "#ddcc77", "#44aa99", "#882255", "#999933")
MARKS = "o^s"

CHANNELS, IMAGES = 2, 5
SIDE, GUTTER = 104, 96
SHEET_BYTES = 72_000
CANDIDATES = 64  # strongest channels among which unlike ones are searched
BLOCK = 64  # channels ranked in one step, to bound the memory


def feature_map(path: Path, features: np.ndarray | ConcatFeatures, labels: Sequence[str]) -> str:
    """Draw images as points of a plane, near where their features are alike, coloured by label.

    The standardized features' first 50 principal components, laid out by t-SNE (van der Maaten & Hinton, "Visualizing
    data using t-SNE", JMLR 9, 2008; started from the first two, after Kobak & Berens, "The art of using t-SNE for
    single-cell transcriptomics", Nature Communications 10, 2019). Fewer than 30 images: the first two components.

    Args:
        path: the PNG file.
        features: (N, D), of any float type; of more than 1,000 rows, 1,000 evenly spaced ones are drawn.
        labels: label of each row.

    Returns:
        A sentence: the method, the number of images, and the share of their nearest neighbours among all D features
        that have the same label.
    """
    rows = np.linspace(0, len(features) - 1, min(len(features), MOST_POINTS)).round().astype(int)
    names, numbers = np.unique(np.array(labels, dtype=object)[rows].astype(str), return_inverse=True)
    # Threads that wait for each other thousands of times take ten times as long where another process runs too.
    with threadpool_limits(1):
        values = _standardize(features[rows])
        agreement = _agreement(values, numbers)
        components = _components(values)
        many = len(rows) >= FEWEST_POINTS and bool(components[:, 0].any())
        points = _t_sne(components) if many else components[:, :2]
    _draw_points(path, points, numbers, names.tolist())
    method = "t-SNE" if many else "The first two principal components"
    images = f"{len(rows):,} of {len(features):,}" if len(rows) < len(features) else f"{len(rows):,}"
    return f"{method} of the features of {images} training images{agreement}."


def _standardize(rows: np.ndarray) -> np.ndarray:
    """Return float32 (N, D) with columns of mean 0 and standard deviation 1, the latter bounded as in the top model."""
    values = rows.astype(np.float32)
    values -= values.mean(0, dtype=np.float64).astype(np.float32)
    # einsum converts to float64 in small buffers: values.std(dtype=float64) would hold a copy of twice the size.
    variance = np.einsum("ij,ij->j", values, values, dtype=np.float64) / len(values)
    values /= np.maximum(np.sqrt(variance), 1e-3).astype(np.float32)
    return values


def _components(values: np.ndarray) -> np.ndarray:
    """Return the principal components (N, 2 to 50) of standardized features; zeros where there are fewer than 2.

    The values are overwritten, which saves a copy of them.
    """
    if len(values) < 2 or not values.any():  # no variance to divide by
        return np.zeros((len(values), 2), np.float32)
    pca = PCA(min(COMPONENTS, *values.shape), copy=False, random_state=0)
    components = pca.fit_transform(values)
    padded: np.ndarray = np.pad(components, ((0, 0), (0, max(0, 2 - components.shape[1]))))
    return padded


def _t_sne(components: np.ndarray) -> np.ndarray:
    """Return points (N, 2) float32 from components (N, 2 to 50)."""
    perplexity = min(PERPLEXITY, (len(components) - 1) / 3)
    method = TSNE(init="pca", random_state=0, max_iter=ITERATIONS, perplexity=perplexity)
    points: np.ndarray = method.fit_transform(components)
    return points


def _agreement(values: np.ndarray, numbers: np.ndarray) -> str:
    """Return the share of the images' nearest neighbours with their label and the share by chance, as a clause."""
    count = len(numbers)
    if count < 2 or not values.shape[1]:
        return ""
    nearest = min(NEIGHBOURS, -(-count // 10))
    search = NearestNeighbors(n_neighbors=nearest, algorithm="brute").fit(values)
    neighbours = search.kneighbors(return_distance=False)  # without the image itself
    share = float((numbers[neighbours] == numbers[:, None]).mean())
    sizes = np.bincount(numbers)
    chance = float((sizes * (sizes - 1)).sum() / (count * (count - 1)))
    scope = f"of the {nearest} images nearest to each" if nearest > 1 else "of the images nearest to each"
    return f"; {scope}, by all features, {share:.0%} have its label ({chance:.0%} by chance)"


def _draw_points(path: Path, points: np.ndarray, numbers: np.ndarray, names: list[str]) -> None:
    """Draw a scatter plot of points (N, 2), the nine largest classes in colour, the others grey and beneath."""
    sizes = np.bincount(numbers)
    order = np.argsort(-sizes, kind="stable")
    groups = [
        ([number], color, MARKS[place % len(MARKS)])
        for place, (number, color) in enumerate(zip(order, COLORS, strict=False))
    ]
    if len(order) > len(COLORS):
        groups.append((list(order[len(COLORS) :]), SOFT, "X"))
    figure, (axis,) = new_figure(8.6, 5.2, 1)
    for layer, (members, color, mark) in enumerate(groups):
        chosen = np.isin(numbers, members)
        name = short_name(names[members[0]]) if len(members) == 1 else f"{len(members):,} other classes"
        axis.scatter(
            *points[chosen].T,
            s=26,
            c=color,
            marker=mark,
            alpha=0.85,
            linewidths=0,
            zorder=3 if layer < len(COLORS) else 2,
            label=f"{chosen.sum():,} × {name}",  # the number first: matplotlib skips what starts with an underscore
        )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=10, labelcolor=INK, markerscale=1.6)
    save_png(figure, path)


def strongest_channels(values: np.ndarray, count: int, images: int) -> list[tuple[int, list[int]]]:
    """Find the channels that a few images activate far more than the rest do, and those images.

    The strength of a channel is the distance of the weakest of its top images from the median, in standard deviations:
    a single outlier does not make it strong. Channels that share over a third of their top images with a stronger one
    come last.

    Args:
        values: (N, C), of any float type: the maximum of each channel over an image's positions.
        count: number of channels; fewer are returned where fewer differ between images.
        images: number of top images of a channel; equal rows count as one image.

    Returns:
        (channel, row numbers) of each channel, the row that activates it most first.
    """
    blocks = [values[:, low : low + BLOCK] for low in range(0, values.shape[1], BLOCK)]
    strength = np.concatenate([_strength(block.astype(np.float32), images) for block in blocks])
    unlike: list[tuple[int, list[int]]] = []
    alike: list[tuple[int, list[int]]] = []
    for channel in np.argsort(-strength, kind="stable")[:CANDIDATES].tolist():
        if len(unlike) == count or np.isneginf(strength[channel]):
            break
        rows = _top_rows(values, channel, images)
        repeats = any(len({*rows} & {*others}) > images // 3 for _, others in unlike)
        (alike if repeats else unlike).append((channel, rows))
    return (unlike + alike)[:count]


def _strength(values: np.ndarray, images: int) -> np.ndarray:
    """Return the distance of each column's weakest top value from its median, in standard deviations: (C,).

    It is -inf for a column of equal values.
    """
    half, top = len(values) // 2, len(values) - max(1, min(images, len(values) // 4))
    parted = np.partition(values, (half, top), axis=0)
    spread = values.std(0, dtype=np.float64)
    differs = values.min(0) < values.max(0)
    strength: np.ndarray = np.where(differs, (parted[top] - parted[half]) / np.where(differs, spread, 1), -np.inf)
    return strength


def _top_rows(values: np.ndarray, channel: int, images: int) -> list[int]:
    rows: list[int] = []
    for row in np.argsort(-values[:, channel], kind="stable")[: 20 * images].tolist():
        if not any(np.array_equal(values[row], values[other]) for other in rows):
            rows.append(row)
    return rows[:images]


def top_activating_images(
    path: Path, stages: Mapping[str, np.ndarray], places: Sequence[str], labels: Sequence[str]
) -> None:
    """Draw, for each stage's two strongest channels, the five images that activate them most.

    The images that activate a channel most show its pattern (Zeiler & Fergus, "Visualizing and understanding
    convolutional networks", ECCV 2014, section 4).

    Args:
        path: the JPEG file, 90 kB at most.
        stages: stage name → (N, C), of any float type: the maximum of each channel over an image's positions; from
            lower to higher.
        places: URI of each image; a crossed square replaces an image that cannot be decoded.
        labels: label of each image.
    """
    strongest = [(name, strongest_channels(values, CHANNELS, IMAGES)) for name, values in stages.items()]
    height = SIDE + LINE + GAP
    rows = sum(max(1, len(channels)) for _, channels in strongest)
    sheet = Image.new("RGB", (GUTTER + IMAGES * (SIDE + GAP), rows * height + GAP), "white")
    draw, large, small = ImageDraw.Draw(sheet), Letters(14), Letters(11)
    top = GAP
    for name, channels in strongest:
        draw.line((GAP, top - GAP // 2, sheet.width - GAP, top - GAP // 2), "#e4e7eb")
        large.draw(draw, (GAP, top), large.fit(name, GUTTER - 2 * GAP), INK)
        if not channels:
            small.draw(draw, (GUTTER, top), "no channel tells the images apart", INK)
        for place, (channel, images) in enumerate(channels):
            small.draw(draw, (GAP, top + 20 + place * height), f"channel {channel:,}", INK)
            for column, row in enumerate(images):
                corner = (GUTTER + column * (SIDE + GAP), top + place * height)
                _draw_image(sheet, corner, places[row], labels[row])
        top += max(1, len(channels)) * height
    save_jpeg(sheet, path, SHEET_BYTES)


def _draw_image(sheet: Image.Image, corner: tuple[int, int], place: str, label: str) -> None:
    sheet.paste(tile(place, SIDE), corner)
    letters = Letters(10)
    letters.draw(ImageDraw.Draw(sheet), (corner[0], corner[1] + SIDE), letters.fit(label, SIDE), INK)
