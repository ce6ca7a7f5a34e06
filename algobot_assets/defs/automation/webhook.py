"""POST alerts as JSON to ALGOBOT_ALERT_WEBHOOK.

The URL may hold a secret, so messages never contain it, and errors name only their type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from pydantic import SecretStr

#: Seconds to connect and to wait for the response; a sensor's tick has one minute in total.
TIMEOUT = (3.0, 7.0)


def post(url: SecretStr, document: Mapping[str, Any]) -> str | None:
    """Send the document. Return None on success, else the reason, without the URL."""
    try:
        answer = requests.post(url.get_secret_value(), json=document, timeout=TIMEOUT, allow_redirects=False)
    except requests.exceptions.RequestException as error:
        return f"no answer ({type(error).__name__})"
    if 200 <= answer.status_code < 300:
        return None
    return f"answered {answer.status_code}"
