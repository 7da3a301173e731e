"""The contract of the bus as one AsyncAPI document.

python -m fedbus.contract > deploy/asyncapi.yaml        the same as `fedbus schema bus`
"""

from __future__ import annotations

from typing import Any

import yaml

from fedbus import __version__
from fedbus.contract.channels import channels, described, operation
from fedbus.contract.messages import all_messages
from fedbus.contract.schemas import Schema
from fedbus.contract.words import about

ASYNCAPI = "3.1.0"
WIDTH = 140


def document() -> Schema:
    """The document as JSON-able data."""
    messages = all_messages()
    found = channels(messages.events)
    return {
        "asyncapi": ASYNCAPI,
        "id": "urn:fedbus:bus",
        "info": {
            "title": "fedbus: the bus of a federation",
            "version": __version__,
            "description": about(),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "contact": {"name": "fedbus", "url": "https://www.asyncapi.com"},
            "tags": [{"name": who} for who in ("site", "submitter", "watcher", "operator")],
        },
        "defaultContentType": "application/json",
        "servers": {
            "federation": {
                "host": "broker.example.org:5671",
                "pathname": "/fedbus",
                "protocol": "amqps",
                "protocolVersion": "0.9.1",
                "description": "The federation's RabbitMQ, one virtual host. Without TLS on loopback alone.",
                "security": [
                    {"$ref": "#/components/securitySchemes/password"},
                    {"$ref": "#/components/securitySchemes/certificate"},
                ],
            }
        },
        "channels": {channel.id: described(channel) for channel in found},
        "operations": dict(map(operation, found)),
        "components": {
            "securitySchemes": {
                "password": {"type": "userPassword", "description": "A login and its password, SASL PLAIN."},
                "certificate": {"type": "X509", "description": "The certificate of a kit, SASL EXTERNAL."},
            },
            "messages": messages.by_id,
            "schemas": messages.schemas,
        },
    }


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks; nothing by anchor."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def as_yaml() -> str:
    """The document as YAML, the same bytes each time."""
    head = "# Made of the types by `fedbus schema bus`; a test compares. Do not edit.\n"
    body: str = yaml.dump(_plain(document()), Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
    return head + body


def _plain(value: Any) -> Any:
    """Words of an enum as texts, mappings and sequences as those of JSON."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
