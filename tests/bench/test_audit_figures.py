"""The bytes that a site's audit log counts are those that its sockets have sent, but for what the protocol adds."""

from __future__ import annotations

from fedbus.bench.audit import rows


def test_the_log_counts_what_the_sockets_send() -> None:
    found = {row["case"]: row for row in rows(updates=3, chunks=4, messages=5)}

    logged = found["bytes that left, by the log"]["value"]
    sent = found["bytes that the broker acknowledged, on the sockets"]["value"]
    # 3 updates of 4 chunks and a manifest, 5 messages of two kinds: 25 messages, with headers of less than 1.5 kB each
    assert 3 * 4 * (1 << 20) < logged < sent < logged + 25 * 1500
    assert found["lines an update"]["value"] == 1
