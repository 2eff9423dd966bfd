"""Is the language model there? Asked once before a search starts, so that a wrong key costs a second and not a run.

``GET {base}/models`` is the one request that every OpenAI-compatible endpoint answers without using tokens.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

from service_kit.errors import InvalidArgument, Unauthenticated, Unavailable
from service_kit.settings import ModelSettings

_DEFAULT = "https://api.openai.com/v1"
_REFUSED = (401, 403)


def endpoint_of(settings: ModelSettings) -> str:
    """Address of the configured endpoint; empty where the scripted researcher answers."""
    return (settings.base_url or _DEFAULT) if settings.configured else ""


def answered_by(settings: ModelSettings) -> str:
    """Who answers both loops, in a sentence."""
    if endpoint_of(settings):
        return f"both loops ask {settings.model} at {endpoint_of(settings)}"
    return "no model endpoint is configured: the scripted researcher answers (labelled so everywhere, no evidence)"


async def check_endpoint(settings: ModelSettings, timeout: float = 10.0) -> None:
    """Raise what a person must mend: no model named, a wrong key, an endpoint that cannot be reached.

    An endpoint without a list of models passes: only a real call can tell more.
    """
    if not settings.configured:
        return
    if not settings.model:
        raise InvalidArgument.of("BILEVEL_MODEL", "must name the model to use, as the endpoint calls it")
    await asyncio.to_thread(_ask, settings, timeout)


def _ask(settings: ModelSettings, timeout: float) -> None:
    base = endpoint_of(settings).rstrip("/")
    request = urllib.request.Request(f"{base}/models")  # noqa: S310 (the settings allow http and https only)
    if settings.api_key is not None:
        request.add_header("Authorization", f"Bearer {settings.api_key.get_secret_value()}")
    try:
        with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        if error.code in _REFUSED:
            raise Unauthenticated(
                f"the model endpoint {base} refuses the key (HTTP {error.code})",
                hint="Check OPENAI_API_KEY, and that it belongs to OPENAI_BASE_URL.",
            ) from None
        return
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"the model endpoint {base}",
            hint=f"It failed with: {getattr(reason, 'strerror', None) or reason}. Check OPENAI_BASE_URL. "
            "Without it and without OPENAI_API_KEY the scripted researcher answers.",
        ) from None
