"""Workers for tests: three objects in this process, which see only what was pickled."""

import pickle
from itertools import islice

from anomaly_ad.workers import Local


def batched(items, size):
    """As that of itertools from Python 3.12 on."""
    items = iter(items)
    while some := [*islice(items, size)]:
        yield some


class Pickled(Local):
    """As processes of their own."""

    count = 3
    spreads = True

    def __init__(self):
        self.sent = 0

    def _through(self, value):
        data = pickle.dumps(value)
        self.sent += len(data)
        return pickle.loads(data)  # noqa: S301 - its own

    def map(self, job, items, chunk=16):
        work = self._through(job).start()
        for some in batched(items, chunk):
            yield from self._through([*work(self._through(some))])

    def hold(self, make):
        return [_Object(self, self._through(make)()) for _ in range(self.count)]

    def share(self, value):
        return value

    def merged(self, name, helds, args):
        parts = [held.ask(name, *some)() for held, some in zip(helds, args, strict=True)]
        while len(parts) > 1:
            pairs = [*batched(parts, 2)]
            parts = [pair[0].merge(pair[1]) if len(pair) == 2 else pair[0] for pair in pairs]
        return parts[0]


class _Object:
    def __init__(self, workers, held):
        self._workers, self._held = workers, held

    def tell(self, name, args):
        return self.ask(name, *args())

    def ask(self, name, *args):
        through = self._workers._through
        found = through(getattr(self._held, name)(*map(through, args)))
        return lambda: found
