"""Tiles: where they lie, what they show, and how their answers become those of the photograph."""

import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_part
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from anomaly_ad.errors import ImageError, OptionError
from anomaly_ad.images import Framing, ImageSet, Photograph, image_digest
from anomaly_ad.images.light import learn_gain
from anomaly_ad.images.pose import learn_pose
from anomaly_ad.images.roi import resolve_region
from anomaly_ad.images.taken import Place, resize, with_peaks
from anomaly_ad.images.tiles import MOST_MAP, MOST_TILES, Tiles, check_tiling, lay_tiles
from anomaly_ad.images.view import View
from anomaly_ad.model import Plan
from anomaly_ad.model.outside import outside_the_graph

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiles_in_numpy.py"
REFERENCE = runpy.run_path(str(EXAMPLE), run_name="reference")


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def lay(size, **options):
    return lay_tiles(options, [size], lambda whole: whole, (64, 64), 16)


def framed(size, input_size=(32, 32), **options):
    tiles = lay_tiles(options, [size], lambda whole: whole, input_size, 16)
    return Framing.new(*input_size, 3, tiles=tiles)


# --------------------------------------------------------------------------- where they lie


@given(
    st.tuples(st.integers(40, 400), st.integers(40, 400)),
    st.tuples(st.integers(16, 400), st.integers(16, 400)),
    st.floats(0, 0.7),
)
@settings(max_examples=200, deadline=None)
def test_tiles_cover_all_and_overlap_as_asked(size, tile, overlap):
    assume(tile[0] <= size[0] and tile[1] <= size[1])
    count = math.prod(s / (t * (1 - overlap)) + 1 for s, t in zip(size, tile, strict=True))
    assume(count < MOST_TILES)
    tiles = lay(size, tile_size=tile, overlap=overlap)
    if tiles is None:
        assert tile == size
        return
    boxes = np.array(tiles.boxes((10, 20, 10 + size[1], 20 + size[0])))
    covered = np.zeros((20 + size[0], 10 + size[1]), int)
    for x1, y1, x2, y2 in boxes.tolist():
        assert (y2 - y1, x2 - x1) == tile
        covered[y1:y2, x1:x2] += 1
    assert (covered[20:, 10:] > 0).all() and not covered[:20].any() and not covered[:, :10].any()
    for axis, side in ((0, tile[1]), (1, tile[0])):
        starts = np.unique(boxes[:, axis])
        assert (np.diff(starts) <= side * (1 - overlap) + 1).all()


@given(
    st.tuples(st.integers(50, 500), st.integers(50, 500)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.floats(0, 0.5),
)
def test_rows_and_columns_are_those_asked_for(size, grid, overlap):
    tiles = lay(size, tiles=grid, overlap=overlap)
    if grid == (1, 1):
        assert tiles is None
        return
    assert (tiles.rows, tiles.columns) == grid
    for side, whole, count in zip(tiles.size, size, grid, strict=True):
        assert side * count >= whole
        # No larger than it must be.
        assert (side - 1) * (count - (count - 1) * overlap) < whole


@pytest.mark.parametrize(
    ("size", "smallest", "expected"),
    [
        ((2000, 3000), 12, (6, 9, 384)),  # never enlarged
        ((2000, 3000), None, (6, 9, 384)),
        ((2000, 3000), 32, (3, 5, 768)),  # 32 pixels become 16
        ((2000, 3000), 200, None),  # a cell is as large in the whole
        ((300, 3000), 12, (1, 9, 300)),
    ],
)
def test_auto_lets_the_smallest_defect_cover_a_cell(size, smallest, expected):
    options = {"tiles": "auto", "smallest_defect": smallest}
    plan = Plan.from_options("patchcore", options, [size] * 9)
    tiles = plan.framing.tiles
    if expected is None:
        assert tiles is None
        return
    assert (tiles.rows, tiles.columns, tiles.height) == expected
    assert plan.framing.height <= tiles.height and plan.framing.width <= tiles.width
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": (2, 2), "tile_size": (90, 90)}, "Give one of them"),
        ({"tiles": "many"}, r'\(rows, columns\) or "auto"'),
        ({"tiles": (0, 2)}, r'\(rows, columns\) or "auto"'),
        ({"tiles": (2.5, 2)}, r'\(rows, columns\) or "auto"'),
        ({"tiles": (True, 2)}, r'\(rows, columns\) or "auto"'),
        ({"tiles": 4}, r'\(rows, columns\) or "auto"'),
        ({"tile_size": 90}, "at least 16"),
        ({"tile_size": (8, 90)}, "at least 16"),
        ({"overlap": 0.1}, "Give tiles or tile_size"),
        ({"tiles": (2, 2), "overlap": 1}, "to less than 1"),
        ({"tiles": (2, 2), "overlap": 1.5}, "to less than 1"),
        ({"tiles": (2, 2), "overlap": 64}, "to less than 1"),
        ({"tiles": (2, 2), "overlap": -0.1}, "to less than 1"),
        ({"tiles": (2, 2), "overlap": float("nan")}, "to less than 1"),
        ({"tiles": (2, 2), "overlap": "a lot"}, "to less than 1"),
        ({"smallest_defect": 12}, 'tiles="auto" with it'),
        ({"tiles": (2, 2), "smallest_defect": 12}, 'tiles="auto" with it'),
        ({"tiles": "auto", "smallest_defect": 0}, "at least 1"),
        ({"tiles": "auto", "smallest_defect": float("inf")}, "at least 1"),
        ({"tiles": "auto", "smallest_defect": True}, "at least 1"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(OptionError, match=message):
        check_tiling(options)
    with pytest.raises(OptionError, match=message):
        Plan.from_options("patchcore", options)


@pytest.mark.parametrize(
    ("options", "sizes", "message"),
    [
        ({"tile_size": (1000, 400)}, [(900, 900)], "larger than what is inspected"),
        ({"tile_size": (200, 200)}, [(900, 900)], r"smaller than the model's input, 256x256"),
        ({"tiles": (9, 9)}, [(900, 900)], r"such as img_size=\(96, 96\)"),
        ({"tiles": (2, 2), "img_size": (512, 512)}, [(900, 900)], "Choose larger or fewer tiles"),
        ({"tiles": (2, 2)}, [(900, 900), (900, 800)], "of one size"),
        ({"tiles": (40, 40), "img_size": (16, 16)}, [(900, 900)], "Choose larger tiles"),
        ({"tile_size": (300, 300), "overlap": 0.999}, [(900, 900)], "2 to 1024 tiles"),
    ],
)
def test_tiles_that_do_not_fit_the_photographs(options, sizes, message):
    with pytest.raises(OptionError, match=message):
        Plan.from_options("patchcore", options, sizes)


def test_auto_takes_narrow_photographs_as_they_are():
    for size, expected in (((128, 3000), (128, 384)), ((150, 3000), (128, 384))):
        framing = Plan.from_options("patchcore", {"tiles": "auto"}, [size] * 9).framing
        assert framing.size == expected and framing.tiles.height == size[0]


def test_padim_names_the_method_that_can():
    with pytest.raises(OptionError, match="Use patchcore"):
        Plan.from_options("padim", {"tiles": (2, 2)})


@pytest.mark.parametrize("damage", [{"rows": 1, "columns": 1}, {"rows": 2.0}, {"by_map": 1}])
def test_damaged_tiles(damage):
    values = {"photograph": (90, 90), "height": 50, "width": 50, "rows": 2, "columns": 2}
    with pytest.raises(OptionError, match="Received"):
        Tiles(**{**values, **damage})


# ----------------------------------------------------------------------------- what they show


def test_views_are_crops_and_made_one_at_a_time():
    way, photo = framed((100, 150), tile_size=(32, 32)), noise(100, 150)
    taken = way.take(photo)
    assert len(taken.views) == len(taken.tiles) == way.n_views == way.tiles.count
    boxes = way.tiles.boxes((0, 0, 150, 100))
    for view, (x1, y1, x2, y2) in zip(taken.views, boxes, strict=True):
        np.testing.assert_array_equal(view, photo[y1:y2, x1:x2])
    np.testing.assert_array_equal(taken.views[-1], photo[-32:, -32:])
    with pytest.raises(TypeError, match="one at a time"):
        taken.views[:2]
    assert image_digest(taken.views) == image_digest(way.views(photo))


def test_a_photograph_of_another_size_is_refused():
    way = framed((100, 150), tile_size=(32, 32))
    with pytest.raises(ImageError, match=r"part\.png has 150x100 .* were laid for 100x150"):
        way.take(noise(150, 100), name="part.png")


def test_a_reduced_decode_is_large_enough(tmp_path):
    way = framed((1000, 1600), (100, 100), tile_size=(400, 400))
    height, width = way.least_size((1000, 1600))
    assert (height, width) == (250, 400)
    photo = np.full((1000, 1600, 3), 90, np.uint8)
    photo[300:400, 900:1100] = 200
    half = photo[::2, ::2]
    full = way.views(photo).astype(int)
    assert np.abs(full - way.views(half, (1000, 1600))).mean() < 1


def test_a_black_tile_of_a_deep_photograph_is_no_error():
    tiles = Tiles((64, 64), 32, 32, 2, 2)
    way = Framing.new(32, 32, 3, value_range=(0, 4095), deep=True, tiles=tiles)
    photo = np.zeros((64, 64, 3), np.uint16)
    photo[32:] = 2000
    views = way.views(photo)
    assert (views[0] == 0).all() and (views[-1] > 100).all()
    with pytest.raises(ImageError, match="8 bits"):  # before any view is made
        way.take(np.zeros((64, 64, 3), np.uint8))


def test_tiles_of_which_nothing_counts_are_left_out():
    """A region in one corner and a hole: the other tiles are neither learnt nor looked at."""
    region = resolve_region([(0, 0), (60, 0), (0, 60)], (0, 0, 8, 8), [(128, 128)])
    tiles = Tiles((128, 128), 20, 20, 4, 4)
    way = Framing.new(20, 20, 3, region=region, tiles=tiles)
    photo = noise(128, 128)
    taken = way.take(photo)
    assert 0 < len(taken.tiles) < way.n_views
    assert all(view[..., 3].any() for view in taken.views)
    # Neighbours show the same at the same places.
    other = photo.copy()
    other[70:] = 0
    np.testing.assert_array_equal(way.views(photo), way.views(other))
    shown = taken.inspected()
    assert shown[20, 20] and not shown[4, 4] and not shown[50:, 50:].any()
    merged = way.merge(
        {
            "score": np.ones(len(taken.tiles)),
            "anomaly_map": np.stack([view[..., 3].astype(np.float32) for view in taken.views]),
        },
        taken.tiles,
    )
    assert merged["anomaly_map"].shape == way.map_size == taken.counted.shape
    assert merged["anomaly_map"][taken.counted].mean() > 0.95


def test_tiles_in_a_pose_show_the_turned_photograph():
    pose, _ = learn_pose("translation", [draw_part(n, size=96) for n in range(9)])
    plane = pose.size_of((96, 96))
    tiles = Tiles((96, 96), 48, 48, 3, 3)
    whole = Framing.new(*plane, 3, pose=pose)
    way = Framing.new(48, 48, 3, pose=pose, tiles=tiles)
    photo = draw_part(40, size=96)
    taken, view = way.take(photo), whole.take(photo).views[0]
    picture = way.merge(
        {
            "score": np.zeros(len(taken.tiles)),
            "anomaly_map": np.stack([one[..., 0].astype(np.float32) for one in taken.views]),
        },
        taken.tiles,
    )["anomaly_map"]
    assert picture.shape == plane == way.map_size
    inner = np.s_[8:-8, 8:-8]
    assert np.abs(picture[inner] - view[inner][..., 0]).mean() < 2
    np.testing.assert_allclose(taken.to_photo, whole.take(photo).to_photo, atol=1e-6)


def test_the_border_of_a_moved_photograph_is_where_it_is():
    """What lies beyond is its mirror image and does not count, to the pixel, also in a tile."""
    shift = np.array([[1.0, 0, 100], [0, 1, 0]])  # the photograph begins at column 100
    box = (0, 0, 256, 256)
    view = View.of((256, 256), Place(0, 0, 256, 256, box), shift)
    beyond = view.beyond((3000, 3000))
    assert beyond[:, :100].all() and not beyond[:, 100:].any()
    assert View.of((256, 256), Place(0, 0, 256, 256, box), None).beyond((3000, 3000)) is None


def test_a_small_peak_survives_shrinking():
    anomaly_map = np.zeros((900, 900), np.float32)
    anomaly_map[450:456, 300:306] = 1
    small = resize(with_peaks(anomaly_map, 1 / 9), (100, 100))
    y, x = np.unravel_index(small.argmax(), small.shape)
    assert small.max() > 0.9 and abs(y - 50) <= 1 and abs(x - 33) <= 1
    assert with_peaks(anomaly_map, 0.5) is anomaly_map


def test_light_is_that_of_the_photograph_and_not_of_a_tile():
    photo = np.full((64, 64, 3), 60, np.uint8)
    photo[:, 32:] = 160
    light = learn_gain([(photo, None)])
    tiles = Tiles((64, 64), 32, 32, 2, 2)
    views = Framing(32, 32, 3, light=light, tiles=tiles).views((photo * 0.8).astype(np.uint8))
    assert np.abs(views[0].astype(int) - 60).max() <= 3
    assert np.abs(views[1].astype(int) - 160).max() <= 3


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_points_of_the_map_lie_where_they_are_in_the_photograph(fit):
    tiles = Tiles((200, 300), 80, 120, 3, 3)
    way = Framing.new(64, 64, 3, fit, tiles=tiles)
    photo = np.zeros((200, 300, 3), np.uint8)
    photo[141:147, 221:227] = 255
    taken = way.take(photo)
    maps = np.stack([view[..., 0].astype(np.float32) for view in taken.views])
    anomaly_map = way.merge({"score": np.zeros(9), "anomaly_map": maps}, taken.tiles)["anomaly_map"]
    y, x = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    ((px, py),) = taken.points_to_original(np.array([[x + 0.5, y + 0.5]])).tolist()
    assert abs(px - 224) <= 4 and abs(py - 144) <= 4
    large = taken.map_to_original(anomaly_map)
    assert large.shape == (200, 300) and large[143, 223] > 0.5 * large.max() and large[20, 20] == 0


# ------------------------------------------------------------------- how answers are merged


@given(st.tuples(st.integers(40, 200), st.integers(40, 200)), st.floats(0, 0.6), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_maps_of_crops_merge_into_the_whole(size, overlap, seed):
    """Where all tiles say the same of a pixel, so does the merged map: it shows no seams."""
    way = framed(size, tile_size=(32, 32), overlap=overlap)
    photo = noise(*size, seed)
    taken = way.take(photo)
    outputs = {
        "score": np.arange(len(taken.tiles), dtype=np.float32),
        "anomaly_map": np.stack([view[..., 1].astype(np.float32) for view in taken.views]),
        "reconstruction": np.stack([view.astype(np.float32) for view in taken.views]),
    }
    merged = way.merge(outputs, taken.tiles)
    np.testing.assert_allclose(merged["anomaly_map"], photo[..., 1], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(merged["reconstruction"], photo, rtol=1e-5, atol=1e-3)
    assert merged["score"] == len(taken.tiles) - 1


def test_what_a_tile_says_at_its_edge_weighs_less():
    way = framed((32, 48), tile_size=(32, 32), overlap=0.5)
    maps = np.zeros((2, 32, 32), np.float32)
    maps[0] = 1
    merged = way.merge({"score": np.zeros(2), "anomaly_map": maps}, (0, 1))["anomaly_map"]
    across = merged[16]
    assert (across[:16] == 1).all() and (across[32:] == 0).all()
    assert (np.diff(across[16:32]) < 0).all()


def test_the_score_is_of_the_map_or_of_a_tile():
    outputs = {"score": np.float32([3, 9]), "anomaly_map": np.ones((2, 32, 32), np.float32)}
    for by_map, expected in ((True, 1), (False, 9)):
        way = Framing.new(32, 32, 3, tiles=Tiles((32, 64), 32, 32, 1, 2, by_map))
        assert way.merge(outputs, (0, 1))["score"] == expected
    nan = {"score": np.float32([np.nan, 9])}
    assert np.isnan(way.merge(nan, (0, 1))["score"])  # which is an error later, not a verdict


def test_gray_reconstructions_keep_their_channel():
    way = Framing.new(32, 32, 1, tiles=Tiles((32, 64), 32, 32, 1, 2))
    outputs = {"score": np.zeros(2), "reconstruction": np.ones((2, 32, 32, 1), np.float32)}
    assert way.merge(outputs, (0, 1))["reconstruction"].shape == (32, 64, 1)


def test_merged_maps_stay_small():
    way = framed((6000, 8000), (256, 256), tile_size=(256, 256))
    assert way.n_views > 800 and math.prod(way.map_size) <= MOST_MAP
    assert way.map_scale == pytest.approx(1 / 7, rel=0.01)
    merger = way.merger()
    for tile in range(way.n_views):
        merger.add(tile, {"score": np.zeros(1), "anomaly_map": np.ones((1, 256, 256), np.float32)})
    out = merger.result()["anomaly_map"]
    np.testing.assert_allclose(out, 1, rtol=1e-5)


# ------------------------------------------------------------------------- sets of images


def test_sets_hold_images_and_give_views():
    way = framed((64, 96), tile_size=(32, 32))
    views = np.stack([way.views(noise(64, 96, n)) for n in range(5)])
    images = ImageSet(views)
    count = way.n_views
    assert len(images) == 5 and images.total_views == 5 * count
    assert images[np.array([3, 1])].shape == (2 * count, 32, 32, 3)
    assert max(len(batch) for batch in images) <= ImageSet.BATCH
    np.testing.assert_array_equal(np.concatenate([*images]), views.reshape(-1, 32, 32, 3))
    assert len(set(images.digests())) == 5
    single = images.subset(np.array([4, 2])).as_views()
    assert len(single) == 2 * count
    np.testing.assert_array_equal(single[slice(0, count)], views[4])
    assert len(single.spread(3)) == 3 and len(single.spread(1000)) == 2 * count


def test_decoded_sets_leave_out_what_does_not_count(tmp_path):
    from conftest import write_image

    region = resolve_region([(0, 0), (60, 0), (0, 60)], None, [(96, 96)])
    way = Framing.new(20, 20, 3, region=region, tiles=Tiles((96, 96), 20, 20, 4, 4))
    paths = [write_image(tmp_path / f"{n}.png", noise(96, 96, n)) for n in range(3)]
    with ImageSet.decode(paths, way) as images:
        for path, image in zip(paths, images.singly(), strict=True):
            taken = Photograph.read(path, way).take()
            assert image.tiles == [*taken.tiles]
            np.testing.assert_array_equal(image.views, np.stack([*taken.views]))
        assert images.total_views < 3 * way.n_views


# ----------------------------------------------------------------- the reference in numpy


def vectors():
    return json.loads(EXAMPLE.with_suffix(".json").read_text())


def pattern(height, width):
    """The photograph of the test vectors: value = (7 x + 13 y + 29 c + (x y) mod 31) mod 256."""
    y, x, c = np.mgrid[:height, :width, :3]
    return ((7 * x + 13 * y + 29 * c + (x * y) % 31) % 256).astype(np.uint8)


@pytest.mark.parametrize("case", vectors(), ids=lambda case: case["name"])
def test_vectors_are_what_package_and_reference_give(case):
    photo = pattern(*case["photograph"])
    box = case["rectangle"]
    size = tuple(case["photograph"])
    region = None if box is None else resolve_region(tuple(box), None, [size])
    spec = case["spec"]
    tiles = None
    if "tiles" in spec:
        tiles = Tiles(**{**spec["tiles"], "photograph": size})
    way = Framing.new(spec["height"], spec["width"], 3, region=region, tiles=tiles)
    manifest = {"plan": {"spec": spec}, "outside_the_graph": outside_the_graph(way)}
    assert manifest["outside_the_graph"]["rectangle"] == box
    received, expected = REFERENCE["views_of"](photo, manifest), way.views(photo)
    np.testing.assert_array_equal(received, expected)
    assert [image_digest(view[None]) for view in received] == case["sha256"]


@given(
    st.tuples(st.integers(20, 200), st.integers(20, 200)),
    st.tuples(st.floats(0.15, 1), st.floats(0.15, 1)),
    st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_the_reference_shrinks_bit_for_bit(size, by, seed):
    target = tuple(max(round(side * f), 2) for side, f in zip(size, by, strict=True))
    image = noise(*size, seed)
    np.testing.assert_array_equal(REFERENCE["shrink"](image, target), resize(image, target))


def test_the_reference_merges_maps_that_shrink():
    way = framed((3000, 2000), (128, 128), tile_size=(128, 128))
    maps = np.random.default_rng(0).random((way.n_views, 128, 128), np.float32)
    outputs = {"score": np.zeros(len(maps)), "anomaly_map": maps}
    expected = way.merge(outputs, range(len(maps)))["anomaly_map"]
    assert way.map_scale < 0.5
    tiles = {"height": 128, "width": 128, "rows": way.tiles.rows, "columns": way.tiles.columns}
    received = REFERENCE["merged"](maps, (3000, 2000), tiles, way.map_size)
    np.testing.assert_allclose(received, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [{"channels": 1}, {"light": {"level": 1}}, {"pose": {}}, {"deep": True}, {}],
)
def test_the_reference_refuses_what_it_leaves_out(spec):
    manifest = {"plan": {"spec": {"height": 32, "width": 32, **spec}}}
    manifest["outside_the_graph"] = {"rectangle": None, "inputs": ["images", "inside"]}
    with pytest.raises(ValueError, match=r"leaves out|covers"):
        REFERENCE["views_of"](noise(64, 64), manifest)


def test_the_reference_merges_bit_for_bit():
    way = framed((100, 150), tile_size=(32, 32))
    maps = np.random.default_rng(0).random((way.n_views, 32, 32), np.float32)
    expected = way.merge({"score": np.zeros(len(maps)), "anomaly_map": maps}, range(len(maps)))
    tiles = {"height": 32, "width": 32, "rows": way.tiles.rows, "columns": way.tiles.columns}
    received = REFERENCE["merged"](maps, (100, 150), tiles, way.map_size)
    np.testing.assert_array_equal(received, expected["anomaly_map"])
