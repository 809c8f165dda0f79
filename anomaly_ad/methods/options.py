"""What an option of a method may be: declared once, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol

from ..errors import OptionError


class Suggests(Protocol):
    """What chooses values in a search, such as a trial of Optuna."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """A number in a range, by its logarithm where `log`."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """A whole number in a range."""

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        """One of some words."""


@dataclass(frozen=True)
class Option:
    """An option of a method.

    Parameters
    ----------
    name : str
        As users give it.
    default : anything
        Its value where they do not.
    meaning : str
        For people who choose, half a sentence.
    """

    name: str
    default: Any
    meaning: str

    @property
    def valid(self) -> str:
        """What it may be, in words."""
        raise NotImplementedError

    def check(self, value: Any) -> Any:
        """The value as a plain one; OptionError says what is valid."""
        raise NotImplementedError

    @property
    def is_searched(self) -> bool:
        """Whether `tune` searches it."""
        return bool(getattr(self, "search", ()))

    def suggest(self, trial: Suggests) -> Any:
        """A value that `tune` is to try, where it is searched."""
        raise NotImplementedError

    def as_suggested(self, value: Any) -> Any:
        """A value as it is kept by what suggests it."""
        return value

    def _refuse(self, value: Any) -> OptionError:
        return OptionError(f"{self.name} is {self.valid}. Received: {value!r}.")


@dataclass(frozen=True)
class Number(Option):
    """A number from `low` to `high`, in a unit; or one of some words.

    `search` is the range that `tune` searches, by the logarithm where its ends are far apart.
    """

    low: float = 0.0
    high: float = 1.0
    unit: str = "a number"
    words: tuple[str, ...] = ()
    search: tuple[float, float] | tuple[()] = ()

    @property
    def valid(self) -> str:
        """See `Option`."""
        words = f"one of {', '.join(self.words)}, or " if self.words else ""
        return f"{words}{self.unit} from {self.low:g} to {self.high:g}"

    def check(self, value: Any) -> float | str:
        """See `Option`."""
        if isinstance(value, str) and value in self.words:
            return value
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not self.low <= value <= self.high:
            raise self._refuse(value)
        return float(value)

    def suggest(self, trial: Suggests) -> float:
        """See `Option`."""
        low, high = self.search  # type: ignore[misc]  # it is searched
        value = trial.suggest_float(self.name, low, high, log=_is_wide(low, high))
        return float(f"{value:.3g}")  # as a person would write it


@dataclass(frozen=True)
class WholeNumber(Option):
    """A whole number from `low` to `high`; `search` as of `Number`."""

    low: int = 1
    high: int = 1024
    search: tuple[int, int] | tuple[()] = ()

    @property
    def valid(self) -> str:
        """See `Option`."""
        return f"a whole number from {self.low} to {self.high}"

    def check(self, value: Any) -> int:
        """See `Option`."""
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not is_whole or not self.low <= int(value) <= self.high:
            raise self._refuse(value)
        return int(value)

    def suggest(self, trial: Suggests) -> int:
        """See `Option`."""
        low, high = self.search  # type: ignore[misc]  # it is searched
        return trial.suggest_int(self.name, low, high, log=_is_wide(low, high))


@dataclass(frozen=True)
class Choice(Option):
    """One of a few words, of which `tune` tries those of `search`."""

    words: tuple[str, ...] = ()
    search: tuple[str, ...] = ()

    @property
    def valid(self) -> str:
        """See `Option`."""
        return f"one of {', '.join(self.words)}"

    def check(self, value: Any) -> str:
        """See `Option`."""
        if not isinstance(value, str) or value not in self.words:
            raise self._refuse(value)
        return value

    def suggest(self, trial: Suggests) -> str:
        """See `Option`."""
        return trial.suggest_categorical(self.name, [*self.search])


@dataclass(frozen=True)
class Name(Option):
    """A name that is looked up later; `tune` tries those of `search`."""

    search: tuple[str, ...] = ()

    @property
    def valid(self) -> str:
        """See `Option`."""
        return "a name"

    def check(self, value: Any) -> str:
        """See `Option`."""
        if not isinstance(value, str) or not value.strip():
            raise self._refuse(value)
        return value

    def suggest(self, trial: Suggests) -> str:
        """See `Option`."""
        return trial.suggest_categorical(self.name, [*self.search])


@dataclass(frozen=True)
class Names(Option):
    """Some names, one at least, each once; `tune` tries the lists of `search`."""

    search: tuple[tuple[str, ...], ...] = ()

    @property
    def valid(self) -> str:
        """See `Option`."""
        return "a list of names, one at least and each once"

    def check(self, value: Any) -> list[str]:
        """See `Option`."""
        is_list = isinstance(value, (list, tuple)) and len(value) > 0
        if not is_list or not all(isinstance(name, str) and name.strip() for name in value):
            raise self._refuse(value)
        if len(set(value)) < len(value):
            raise self._refuse(value)
        return list(value)

    def suggest(self, trial: Suggests) -> list[str]:
        """See `Option`."""
        words = [self.as_suggested(names) for names in self.search]
        return trial.suggest_categorical(self.name, words).split(",")

    def as_suggested(self, value: Any) -> str:
        """See `Option`: the names with commas between."""
        return ",".join(value)


def _is_wide(low: float, high: float) -> bool:
    """Whether a range is searched by the logarithm."""
    return low > 0 and high / low >= 8
