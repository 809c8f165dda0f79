"""What an option of a method may be: declared once, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from ..errors import OptionError


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

    def _refuse(self, value: Any) -> OptionError:
        return OptionError(f"{self.name} is {self.valid}. Received: {value!r}.")


@dataclass(frozen=True)
class Number(Option):
    """A number from `low` to `high`, in a unit; or one of some words."""

    low: float = 0.0
    high: float = 1.0
    unit: str = "a number"
    words: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class WholeNumber(Option):
    """A whole number from `low` to `high`."""

    low: int = 1
    high: int = 1024

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


@dataclass(frozen=True)
class Choice(Option):
    """One of a few words."""

    words: tuple[str, ...] = ()

    @property
    def valid(self) -> str:
        """See `Option`."""
        return f"one of {', '.join(self.words)}"

    def check(self, value: Any) -> str:
        """See `Option`."""
        if not isinstance(value, str) or value not in self.words:
            raise self._refuse(value)
        return value


@dataclass(frozen=True)
class Name(Option):
    """A name that is looked up later."""

    @property
    def valid(self) -> str:
        """See `Option`."""
        return "a name"

    def check(self, value: Any) -> str:
        """See `Option`."""
        if not isinstance(value, str) or not value.strip():
            raise self._refuse(value)
        return value


@dataclass(frozen=True)
class Names(Option):
    """Some names, one at least, each once."""

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
