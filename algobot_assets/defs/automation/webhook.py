"""Telling a person: one JSON document by POST to the URL of ALGOBOT_ALERT_WEBHOOK.

The URL may hold a secret, so nothing here names it, and errors say only what kind they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from pydantic import SecretStr

#: Seconds to connect, and to wait for the answer: a sensor's tick has a minute for all it does.
TIMEOUT = (3.0, 7.0)


def post(url: SecretStr, document: Mapping[str, Any]) -> str | None:
    """Send the document; None where it was taken, else why not, without the URL."""
    try:
        answer = requests.post(url.get_secret_value(), json=document, timeout=TIMEOUT, allow_redirects=False)
    except requests.exceptions.RequestException as error:
        return f"no answer ({type(error).__name__})"
    if 200 <= answer.status_code < 300:
        return None
    return f"answered {answer.status_code}"
