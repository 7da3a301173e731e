"""Configuration of a broker that speaks TLS alone and knows logins by certificates: what RabbitMQ reads at its start.

With revocation lists every option of TLS stands in advanced.config: 3.10's rabbitmq.conf has no key for the folder of
lists, and `ssl_options` there replace those of rabbitmq.conf as a whole, with no listener and no word where one is
missing. A session of TLS 1.2 that is taken up again shows no certificate, so none is: it would outlive its revocation.
An unknown key stops a node, so a broker's version is asked for. What is written for 4.x was not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fedbus.bus.topology import MAX_MESSAGE_BYTES

VERSIONS = ("3.10", "4.x")
LISTS = "crl"
PLUGINS = "[rabbitmq_auth_mechanism_ssl].\n"
CIPHERS = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
)
_CONF = """\
# Made by `fedbus provision`. No plain listener, no password: certificates alone.
listeners.tcp = none
listeners.ssl.1 = {listener}
auth_mechanisms.1 = EXTERNAL
ssl_cert_login_from = common_name
load_definitions = {folder}/definitions.json
# A chunk of 8 MiB and what stands around it: nothing larger is ever sent.
max_message_size = {max_message_bytes}
log.file.level = info
log.connection.level = info
"""
_ONLY_IN: Mapping[str, str] = MappingProxyType({"3.10": "", "4.x": "anonymous_login_user = none\n"})
_ADVANCED = """\
[{{rabbit, [{{ssl_options, [
  {{cacertfile, "{folder}/ca.pem"}},
  {{certfile, "{folder}/cert.pem"}},
  {{keyfile, "{folder}/key.pem"}},
  {{verify, verify_peer}},
  {{fail_if_no_peer_cert, true}},
  {{reuse_sessions, false}},
  {{client_renegotiation, false}},
  {{depth, 1}},
  {{versions, ['tlsv1.3', 'tlsv1.2']}},
  {{honor_cipher_order, true}},
  {{ciphers, [{ciphers}]}},
  {{crl_check, peer}},
  {{crl_cache, {{ssl_crl_hash_dir, {{internal, [{{dir, "{folder}/{lists}"}}]}}}}}}
]}}]}}].
"""


def tls_files(folder: Path, *, listener: str, version: str) -> dict[str, str]:
    """Name and text of the configuration files of a broker that finds its files in `folder`.

    `listener` is a port, or an address and a port: `5671`, `127.0.0.1:5671`; `version` is one of VERSIONS.
    """
    conf = _CONF.format(listener=listener, folder=folder, max_message_bytes=MAX_MESSAGE_BYTES)
    ciphers = ", ".join(f'"{cipher}"' for cipher in CIPHERS)
    return {
        "rabbitmq.conf": conf + _ONLY_IN[version],
        "advanced.config": _ADVANCED.format(folder=folder, ciphers=ciphers, lists=LISTS),
        "enabled_plugins": PLUGINS,
    }
