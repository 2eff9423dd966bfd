"""``python -m clients.dashboard.probe HOST:PORT``: exit code 0 when a dashboard answers there. For health checks.

Speaks TLS where BILEVEL_TLS_CERT says that the dashboard does. Whose certificate it is does not matter to whoever only
wants to know whether it is alive.
"""

from __future__ import annotations

import ssl
import sys
import urllib.request

from service_kit.settings import ClientNetworkSettings, ServerNetworkSettings

SECONDS = 5.0
"""How long it may take."""


def alive(address: str) -> bool:
    """Whether the dashboard at ``address`` answers its health check."""
    server, client = ServerNetworkSettings.load(), ClientNetworkSettings.load()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if server.client_ca is not None and client.certificate is not None:
        context.load_cert_chain(client.certificate, client.key)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    scheme = "https" if server.certificate is not None else "http"
    try:
        with opener.open(f"{scheme}://{address}/healthz", timeout=SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError as error:
        sys.stderr.write(f"{address} does not answer: {error}\n")
        return False


if __name__ == "__main__":
    sys.exit(0 if alive(sys.argv[1]) else 1)
