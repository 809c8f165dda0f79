import numpy as np

from anomaly_ad.images import ImageSet


def test_digests_of_some_are_those_of_all_whether_asked_for_before_or_not():
    items = np.random.default_rng(0).integers(0, 255, (6, 1, 8, 8, 3), np.uint8)
    chosen = np.array([4, 1])
    before, after = ImageSet(items), ImageSet(items)
    digests = after.digests()
    assert len(set(digests)) == 6
    for some in (before.subset(chosen), after.subset(chosen)):
        assert some.digests() == [digests[4], digests[1]]
