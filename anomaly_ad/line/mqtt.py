"""Verdicts to an MQTT broker, with quality of service 1."""

from __future__ import annotations

import json
import os
import threading
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from ..errors import OptionError
from .receivers import NotTakenError

_SECONDS = 10.0  # to connect, and to wait for an acknowledgement
PASSWORD = "ANOMALY_AD_MQTT_PASSWORD"


class Mqtt:
    """Publishes JSON under a topic, and waits for the broker's acknowledgement of each.

    Parameters
    ----------
    address : str
        ``[mqtt[s]://][USER@]HOST[:PORT]/TOPIC``; "mqtts" encrypts. The user's password is that of
        the environment variable ANOMALY_AD_MQTT_PASSWORD.

    Raises
    ------
    OptionError
        The address is none.
    """

    name = "mqtt"

    def __init__(self, address: str) -> None:
        parts = urlsplit(address if "://" in address else f"mqtt://{address}")
        self._topic = unquote(parts.path.removeprefix("/"))
        try:
            port = parts.port
        except ValueError:
            port = 0
        is_pattern = "+" in self._topic or parts.fragment or address.endswith("#")
        wrong = not self._topic or is_pattern or not parts.hostname or port == 0
        if parts.scheme not in ("mqtt", "mqtts") or wrong:
            raise OptionError(
                "An MQTT address is HOST/TOPIC, such as broker/line4/verdicts, with mqtts:// "
                f"before it to encrypt. Received: {address!r}."
            )
        secure = parts.scheme == "mqtts"
        self._place = (parts.hostname, port or (8883 if secure else 1883))
        self._connected = threading.Event()
        self._why = "not connected yet"
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(1)
        self._client.reconnect_delay_set(1, 30)
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), os.environ.get(PASSWORD))
        if secure:
            self._client.tls_set()
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._begun = False

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        if reason.is_failure:
            self._why = str(reason)
        else:
            self._connected.set()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        self._why = str(reason)
        self._connected.clear()

    def send(self, key: str, answer: dict[str, Any]) -> None:
        """See `Receiver.send`."""
        if not self._begun:
            self._client.connect_async(*self._place, keepalive=30)
            self._client.loop_start()
            self._begun = True
        if not self._connected.wait(_SECONDS):
            raise NotTakenError(f"{':'.join(map(str, self._place))}: {self._why}", is_away=True)
        sent = self._client.publish(self._topic, json.dumps({"key": key, **answer}), qos=1)
        try:
            sent.wait_for_publish(_SECONDS)
            taken = sent.is_published()
        except (RuntimeError, ValueError) as error:
            raise NotTakenError(str(error), is_away=True) from error
        if not taken:
            raise NotTakenError("no acknowledgement", is_away=True)

    def close(self) -> None:
        """End the connection."""
        if self._begun:
            self._client.disconnect()
            self._client.loop_stop()
