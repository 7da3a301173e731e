"""Frames and digests as the foreign site makes and reads them, against our own: every code, every section."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import torch

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Kind, Layout, TensorSpec
from fedbus.tensors.codec import decode_all_, decode_change_, encode
from fedbus.tensors.digest import digest

ROOT = Path(__file__).parents[2]
MODULES = Path(sys.prefix) / "node" / "node_modules"
LAYOUT = Layout.of(
    [
        TensorSpec(name="norm.mean", shape=(70_000,), dtype="float32", kind=Kind.BUFFER),
        TensorSpec(name="fixed", shape=(9,), dtype="float32", kind=Kind.FROZEN, aliases=("tied",)),
        TensorSpec(name="a.weight", shape=(70, 100), dtype="float32"),
        TensorSpec(name="z", shape=(4097,), dtype="bfloat16"),
        TensorSpec(name="bïas", shape=(33,), dtype="float16"),
    ]
)
SCRIPT = """
const f = require(process.argv[1]);
const given = JSON.parse(require('fs').readFileSync(0));
const bytes = (text) => Buffer.from(text, 'base64');
const params = (text) => new Float32Array(Uint8Array.from(bytes(text)).buffer);
const digests = given.cases.map(({ base, frames }) => {
  const flat = params(base);
  f.apply(flat, frames.map(bytes), given.layout, { add: true });
  return f.paramsDigest(flat);
});
const made = ['fp32', 'int8'].map((code) => f.encode(params(given.flat), given.layout, { code, chunkBytes: 16384 }));
const texts = made.map((all) => all.map((frame) => frame.toString('base64')));
console.log(JSON.stringify({ layout: f.layoutDigest(given.layout), digests, made: texts }));
"""


def in_javascript(given: dict[str, Any]) -> dict[str, Any]:
    paths = os.pathsep.join([str(MODULES), *os.environ.get("NODE_PATH", "").split(os.pathsep)])
    done = subprocess.run(
        ["node", "-e", SCRIPT, ROOT / "deploy/foreign-site/frames.js"],
        env={**os.environ, "NODE_PATH": paths},
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def text_of(data: bytes) -> str:
    return b64encode(data).decode()


def test_javascript_reads_and_writes_what_ours_do() -> None:
    torch.manual_seed(0)
    flat = torch.randn(LAYOUT.numel) * torch.rand(LAYOUT.numel) ** 8
    flat[72_000:74_000] = 0.0
    cases, expected = [], []
    for code in Code:
        for to_hidden in (False, True):
            base = torch.randn(LAYOUT.numel)
            frames = list(encode(flat, LAYOUT, code, seed=3, to_hidden=to_hidden, ratio=0.1, chunk_bytes=16384))
            cases.append({"base": text_of(base.numpy().tobytes()), "frames": [text_of(frame) for frame in frames]})
            decode_change_(base, frames, LAYOUT, add=True)
            expected.append(digest(base))

    found = in_javascript({"layout": LAYOUT.to_dict(), "cases": cases, "flat": text_of(flat.numpy().tobytes())})

    assert found["layout"] == LAYOUT.digest
    assert found["digests"] == expected
    for frames, error in zip(found["made"], (0.0, flat.abs().max() / 127), strict=True):
        out = torch.zeros(LAYOUT.numel)
        decode_all_(out, [b64decode(frame) for frame in frames], LAYOUT)
        assert (out - flat).abs().max() <= error
