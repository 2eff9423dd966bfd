"""The ways in which a language model fails us, each with a sentence that says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

import openai

from service_kit.errors import ServiceError, Unavailable
from service_kit.llm.usage import Usage
from service_kit.logs import redact_text
from service_kit.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str

    def to_json(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


class Failure(StrEnum):
    """Why there is no answer."""

    UNREACHABLE = "unreachable"
    NOT_AN_ENDPOINT = "not_an_endpoint"
    UNAUTHORIZED = "unauthorized"
    UNKNOWN_MODEL = "unknown_model"
    RATE_LIMITED = "rate_limited"
    QUOTA_USED_UP = "quota_used_up"
    TIMED_OUT = "timed_out"
    SERVER_ERROR = "server_error"
    BAD_REQUEST = "bad_request"
    CONTEXT_TOO_LONG = "context_too_long"
    REFUSED = "refused"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    INVALID = "invalid"
    NOT_RECORDED = "not_recorded"
    BUDGET_SPENT = "budget_spent"


TRANSIENT = frozenset({Failure.UNREACHABLE, Failure.RATE_LIMITED, Failure.TIMED_OUT, Failure.SERVER_ERROR})
"""The failures after which the same call may succeed."""

AWAY = frozenset({Failure.UNREACHABLE, Failure.RATE_LIMITED, Failure.SERVER_ERROR})
"""The failures that may well be over in some minutes: a restart, an overload."""

_HINTS = {
    Failure.UNREACHABLE: "Check that the endpoint runs and that OPENAI_BASE_URL is its address.",
    Failure.NOT_AN_ENDPOINT: "Check OPENAI_BASE_URL: it should end in the version, such as /v1.",
    Failure.UNAUTHORIZED: "Set OPENAI_API_KEY to a valid key for this endpoint.",
    Failure.UNKNOWN_MODEL: "Check BILEVEL_MODEL, and that OPENAI_BASE_URL ends in the version, such as /v1.",
    Failure.RATE_LIMITED: "Try again later, or raise BILEVEL_MODEL_RETRIES.",
    Failure.QUOTA_USED_UP: "Top up the account behind OPENAI_API_KEY, or choose another endpoint with OPENAI_BASE_URL.",
    Failure.TIMED_OUT: "Raise BILEVEL_MODEL_TIMEOUT, or choose a faster model with BILEVEL_MODEL.",
    Failure.SERVER_ERROR: "Try again later, or choose another endpoint with OPENAI_BASE_URL.",
    Failure.BAD_REQUEST: "Check that BILEVEL_TEMPERATURE and BILEVEL_MAX_TOKENS suit this model.",
    Failure.CONTEXT_TOO_LONG: "Lower BILEVEL_CONTEXT_TOKENS, or choose a model with a longer context.",
    Failure.REFUSED: "Choose another model with BILEVEL_MODEL.",
    Failure.EMPTY: "Raise BILEVEL_MAX_TOKENS, or choose another model with BILEVEL_MODEL.",
    Failure.TRUNCATED: "Raise BILEVEL_MAX_TOKENS.",
    Failure.INVALID: "Choose a model that follows a JSON schema with BILEVEL_MODEL.",
    Failure.NOT_RECORDED: "Record the conversation again: its prompts have changed since.",
    Failure.BUDGET_SPENT: "Go on with a larger budget of tokens or money.",
}


class ModelError(Unavailable):
    """A language model gave no usable answer.

    ``usage`` counts every attempt, and ``messages`` is the conversation so far, so that a failed exchange can be
    accounted for and stored like any other. ``retry_after`` is the wait in seconds that the endpoint asked for,
    ``parameter`` the field of the request that it refused, ``latency`` the seconds until the failure was certain.
    ``charged`` says whether the endpoint may have worked, and charge for it, though no answer arrived.
    """

    def __init__(
        self,
        kind: Failure,
        message: str,
        *,
        retry_after: float | None = None,
        usage: Usage | None = None,
        messages: tuple[Message, ...] = (),
        parameter: str = "",
        charged: bool = False,
        hint: str = "",
    ) -> None:
        ServiceError.__init__(self, message, hint=hint or _HINTS[kind])
        self.dependency = "the language model"
        self.kind = kind
        self.retry_after = retry_after
        self.usage = usage or Usage()
        self.messages = messages
        self.parameter = parameter
        self.charged = charged
        self.latency = 0.0


class LimitTooSmall(ModelError):
    """Even the shortest form of a prompt is longer than our own limit; ``needed`` is its estimated tokens."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(
            Failure.CONTEXT_TOO_LONG,
            f"the prompt needs about {needed} tokens at least, and BILEVEL_CONTEXT_TOKENS allows {limit}",
            hint=f"Raise BILEVEL_CONTEXT_TOKENS to {needed} or more; 0 is no limit.",
        )
        self.needed = needed


_TOO_LONG = re.compile(
    r"(?i)context.{0,20}(length|window|size)|maximum context|too many tokens|prompt is too long|input tokens exceed"
)


def model_error(error: Exception, settings: ModelSettings) -> ModelError:
    """The typed form of what the client library raised. The key is never in it, whatever the endpoint echoes."""
    endpoint = settings.base_url or "api.openai.com"
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return ModelError(Failure.TIMED_OUT, f"the model did not answer within {settings.timeout:g} s", charged=True)
    if isinstance(error, openai.APIConnectionError):
        # By name: which HTTP library is underneath depends on the version of the client.
        if type(error.__cause__).__name__ == "ConnectError":
            return ModelError(Failure.UNREACHABLE, f"the model endpoint {endpoint} cannot be reached")
        said = f"the model endpoint {endpoint} closed the connection before it had answered"
        return ModelError(Failure.UNREACHABLE, said, charged=True)
    if not isinstance(error, openai.APIStatusError):
        return ModelError(Failure.NOT_AN_ENDPOINT, f"{endpoint} does not answer like an OpenAI-compatible endpoint")
    status, said = error.status_code, _said(error, settings)
    if status in (401, 403):
        return ModelError(Failure.UNAUTHORIZED, f"{endpoint} refused the API key ({status})")
    if status == 404:
        text = f"{endpoint} does not offer the model {settings.model!r} (404)"
        return ModelError(Failure.UNKNOWN_MODEL, f"{text}: {said}" if said else text)
    if status == 402 or (status == 429 and error.code == "insufficient_quota"):
        return ModelError(Failure.QUOTA_USED_UP, f"{endpoint} says that the quota is used up")
    if status == 429:
        wait = retry_after(error.response.headers)
        return ModelError(Failure.RATE_LIMITED, f"{endpoint} limits the rate of calls (429)", retry_after=wait)
    if status == 413 or error.code == "context_length_exceeded" or (status == 400 and _TOO_LONG.search(said)):
        return ModelError(Failure.CONTEXT_TOO_LONG, f"the prompt is too long for {settings.model}: {said}")
    if status in (408, 409) or status >= 500:
        wait = retry_after(error.response.headers)
        return ModelError(Failure.SERVER_ERROR, f"{endpoint} failed ({status}): {said}", retry_after=wait)
    refused = f"{endpoint} refused the request ({status}): {said}"
    return ModelError(Failure.BAD_REQUEST, refused, parameter=error.param or "")


def _said(error: openai.APIStatusError, settings: ModelSettings) -> str:
    body = error.body if isinstance(error.body, Mapping) else {}
    text = " ".join(str(body.get("message") or error.message).split())
    if settings.api_key is not None and settings.api_key.get_secret_value():
        text = text.replace(settings.api_key.get_secret_value(), "[redacted]")
    return redact_text(text)[:300]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait (RFC 9110, 10.2.3: a number or a date), or None."""
    text = headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
