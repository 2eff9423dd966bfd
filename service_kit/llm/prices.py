"""What tokens cost: a table by model name. A model that is not in it has an unknown price, which is not zero."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service_kit.errors import InvalidArgument, Violation
from service_kit.given_files import SETTINGS_BYTES, read_given_text
from service_kit.settings import ModelSettings


class Price(BaseModel):
    """US dollars for a million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    """Reasoning tokens are written tokens and cost the same."""
    cached: float | None = Field(None, ge=0, allow_inf_nan=False)
    """For tokens read from the endpoint's cache; the same as ``input`` where it is absent."""

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """US dollars; ``cached_tokens`` are among the prompt tokens."""
        cached = self.input if self.cached is None else self.cached
        fresh = prompt_tokens - cached_tokens
        return (fresh * self.input + cached_tokens * cached + completion_tokens * self.output) / 1e6


_TABLE = TypeAdapter(dict[str, Price])


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices that the settings know."""

    configured: Price | None
    """Of the configured model, whatever the endpoint calls it."""
    table: Mapping[str, Price]

    @classmethod
    def of(cls, settings: ModelSettings) -> Self:
        """Raises :class:`InvalidArgument` naming the variable and what is wrong in its file."""
        s = settings
        if (s.price_input is None) != (s.price_output is None):
            missing = "BILEVEL_PRICE_INPUT" if s.price_input is None else "BILEVEL_PRICE_OUTPUT"
            raise InvalidArgument.of(missing, "must be set as well: a cost needs the price of both directions")
        if s.price_cached is not None and s.price_input is None:
            raise InvalidArgument.of("BILEVEL_PRICE_INPUT", "must be set where BILEVEL_PRICE_CACHED is")
        configured = None
        if s.price_input is not None and s.price_output is not None:
            configured = Price(input=s.price_input, output=s.price_output, cached=s.price_cached)
        return cls(configured, _read(s.prices) if s.prices is not None else {})

    def price(self, *names: str) -> Price | None:
        """The price of the first of ``names`` that the table knows, else of the configured model; None is unknown."""
        known = [self.table[name] for name in names if name in self.table]
        return known[0] if known else self.configured


def _read(path: Path) -> dict[str, Price]:
    try:
        return _TABLE.validate_python(tomllib.loads(read_given_text(path, "BILEVEL_PRICES", SETTINGS_BYTES)))
    except ValidationError as error:
        wrong = [
            Violation("BILEVEL_PRICES", f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}") for e in error.errors()
        ]
        raise InvalidArgument(wrong) from None
    except tomllib.TOMLDecodeError as error:
        said = f"must name a readable TOML file of prices by model; {path}: {error}"
        raise InvalidArgument.of("BILEVEL_PRICES", said) from None
