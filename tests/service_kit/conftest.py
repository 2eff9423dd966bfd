"""What tests of the service kit share."""

from collections.abc import AsyncIterator

import pytest

from tests.service_kit.llm_endpoint import Endpoint, serving


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """A language model endpoint that misbehaves on request."""
    async with serving() as endpoint:
        yield endpoint
