"""The configuration of a broker that speaks TLS alone and lets nobody in but by certificate: RabbitMQ 3.10.

    folder/ca.pem      whom it believes         folder/cert.pem, key.pem    its own
    folder/crl/        revocation lists         folder/definitions.json     logins without passwords

`ssl_options` stand in advanced.config as a whole: a folder of lists is a key of no rabbitmq.conf of 3.10, and what
advanced.config says of them replaces all that rabbitmq.conf says. With a part of them in each, the node starts without
a TLS listener and reports no error.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedbus.bus.topology import MAX_MESSAGE_BYTES

PLUGINS = "[rabbitmq_auth_mechanism_ssl].\n"
CIPHERS = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)

CONF = """\
# Nobody speaks to this broker without TLS.
listeners.tcp = none
{listeners}
auth_mechanisms.1 = EXTERNAL
ssl_cert_login_from = common_name
load_definitions = {folder}/definitions.json
# A chunk of 8 MiB and what stands around it: nothing larger is ever sent.
max_message_size = {max_message_bytes}
log.connection.level = info
"""

ADVANCED = """\
%% All of ssl_options stand here: those of rabbitmq.conf do not count beside them.
[{{rabbit, [{{ssl_options, [
  {{cacertfile, "{folder}/ca.pem"}},
  {{certfile, "{folder}/cert.pem"}},
  {{keyfile, "{folder}/key.pem"}},
  {{verify, verify_peer}},
  {{fail_if_no_peer_cert, true}},
  {{depth, 1}},
  {{versions, ['tlsv1.3', 'tlsv1.2']}},
  {{honor_cipher_order, true}},
  {{ciphers, [{ciphers}]}},
  {{crl_check, peer}},
  {{crl_cache, {{ssl_crl_hash_dir, {{internal, [{{dir, "{folder}/crl"}}]}}}}}}
]}}]}}].
"""


def rabbitmq_conf(folder: str, *, listen: Sequence[str]) -> str:
    """rabbitmq.conf; `folder` is where the broker finds its files, `listen` where it takes connections (host:port)."""
    listeners = "\n".join(f"listeners.ssl.{number} = {place}" for number, place in enumerate(listen, 1))
    return CONF.format(folder=folder, listeners=listeners, max_message_bytes=MAX_MESSAGE_BYTES)


def advanced_config(folder: str) -> str:
    """advanced.config. ValueError for a folder whose name would end its string."""
    if '"' in folder or "\\" in folder:
        raise ValueError(f"{folder!r} holds a quote or backslash, which the broker's configuration cannot say")
    return ADVANCED.format(folder=folder, ciphers=", ".join(f'"{cipher}"' for cipher in CIPHERS))
