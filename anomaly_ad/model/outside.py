"""What lies outside a model's graph, in plain terms: for whoever runs the graph elsewhere."""

from __future__ import annotations

from typing import Any

from ..images import Framing
from ..images.pose import OwnAxes
from ..images.roi import box_of, is_rectangle
from ..images.values import EIGHT_BITS


def outside_the_graph(framing: Framing) -> dict[str, Any]:
    """What is done to a photograph before the graph, and to its answers after it.

    Returns
    -------
    dict
        "before" and "after": lists of sentences, in the order of the steps. "rectangle": xyxy in
        pixels of the photograph, what is taken of it; None for all of it, or where it is turned.
        "map_size": (height, width) of the anomaly map of an image. "inputs": those of the graph.
    """
    box = None
    if framing.region is not None and framing.pose is None:
        box = [*box_of(framing.region)]
    return {
        "before": _before(framing, box),
        "after": _after(framing),
        "rectangle": box,
        "map_size": [*framing.map_size],
        "inputs": ["images", "inside"] if framing.has_inside else ["images"],
    }


def _before(framing: Framing, box: list[int] | None) -> list[str]:
    height, width = framing.size
    out = ["Decode the file to RGB, upright as its EXIF orientation says."]
    if framing.deep:
        out[0] = "Decode the file in its own depth: RGB or gray, upright as its EXIF says."
    if framing.reduces:
        out.append(
            "Decode a JPEG at 1/8, 1/4 or 1/2 of its size, as libjpeg does: the smallest whose "
            "sides, rounded down, are not smaller than those that step 'resize' needs of the whole "
            "photograph. What is said of its pixels below means those of its full size."
        )
    if framing.only_part:
        out.append(
            "Find the part in the photograph: what differs from a plane through the border, its "
            "convex hull and 5 % of the longer side around it."
        )
    if framing.pose is not None:
        how = "the axes of the part" if isinstance(framing.pose, OwnAxes) else "registration"
        turned = "Turn and move" if framing.pose.turns else "Move"
        out.append(
            f"{turned} the photograph into the pose of the training images, by {how}. What lies "
            "beyond the photograph is its mirror image, and does not count."
        )
    if box is not None:
        x1, y1, x2, y2 = box
        out.append(f"Take columns {x1} to {x2 - 1} and rows {y1} to {y2 - 1} of the photograph.")
    if framing.tiles is not None:
        tiles = framing.tiles
        out.append(
            f"Divide what is left into {tiles} (height x width), {tiles.rows} rows of "
            f"{tiles.columns}. Tile i of n along an axis begins floor(i (S - s) / (n - 1)) pixels "
            "from the edge, with S the side of what is divided and s that of a tile. Each is a "
            "view of its own."
        )
        if framing.has_inside:
            out.append("Tiles of which nothing counts are left out, before the graph and after it.")
    fit = "each axis by its own factor"
    if framing.fit == "pad":
        fit = "both axes by one factor, so that it fits, centred"
    out.append(
        f"Resize to {height}x{width} (height x width), {fit}: shrinking averages (OpenCV's "
        "INTER_AREA), enlarging interpolates (INTER_LINEAR); an axis that shrinks goes first."
    )
    if framing.channels == 1:
        out.append("Gray is 0.299 R + 0.587 G + 0.114 B, as OpenCV's RGB2GRAY rounds it.")
    if framing.value_range is None:
        out.append("Of 16 bits the upper 8 are taken, before resizing.")
    elif framing.value_range != EIGHT_BITS:
        low, high = framing.value_range
        out.append(f"Values from {low:g} to {high:g} become 0 to 255, rounded and clipped.")
    if framing.light is not None:
        what = (
            "Divide by the field of light of the training images (`plan.spec.light.field`)."
            if framing.light.field is not None
            else "Bring the middle and the distance of the 5th and 95th percentile of the gray "
            "levels to those of `plan.spec.light`, by a factor from 1/1.5 to 1.5 and 64 levels at "
            "most. They are measured where the photograph counts"
            + (", on all that is inspected at 256x256." if framing.tiles else ".")
        )
        out.append(what)
    if framing.has_inside:
        out.append(
            f"What does not count (padding, what is outside the region) is gray {framing.outside} "
            "in the input `images`, and 0 in the second input `inside`, which is 1 elsewhere."
        )
    elif framing.fit == "pad":
        out.append("Repeat the border pixels outwards, to the size of the input.")
    if framing.region is not None and not is_rectangle(framing.region):
        out.append("The region is `plan.spec.region`, a PNG in base64 at the photograph's scale.")
    out.append("The graph takes uint8, (views, height, width, channels), without any scaling.")
    return out


def _after(framing: Framing) -> list[str]:
    out = []
    if framing.tiles is not None:
        height, width = framing.map_size
        out.append(
            f"Merge the maps of the tiles to {height}x{width} (height x width), without what shows "
            "padding: bring each to its place, whose edges are rounded to whole pixels, by "
            "averaging; take the mean where tiles overlap, weighted by the distance from the "
            "nearest edge of the place, 0.5 for the outermost pixels."
        )
        out.append(
            "The image's score is the largest value of the merged map."
            if framing.tiles.by_map
            else "The image's score is the largest of its tiles' scores."
        )
    out.append(
        "An image is anomalous whose score exceeds `calibration.image.limit`; maps have a limit of "
        "their own, `calibration.map.limit`."
    )
    return out
