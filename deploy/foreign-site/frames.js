// Params as frames and back, digests: the sections "Layout", "Frames" and "The model log" of asyncapi.yaml.
'use strict';
const crypto = require('crypto');
const zlib = require('zlib');
const blake = require('blakejs');
const fzstd = require('fzstd');

const HEADER = 24;
const BLOCK = 4096;
const SMALL = 1024;
const VALUE_FRAME = 65536;
const TILE = 32768;
const CODES = ['fp32', 'fp16', 'bf16', 'int8', 'int4', 'topk'];

const product = (shape) => shape.reduce((a, b) => a * b, 1);
const numelOf = ([, shape]) => product(shape);
const kindOf = ([, , , kind]) => kind || 'learnt';

// Where the groups of a layout end: buffers, all values, values and small tensors, everything.
function ends(layout) {
  const sum = (wanted) => layout.tensors.filter(wanted).reduce((n, tensor) => n + numelOf(tensor), 0);
  const isValue = (tensor) => kindOf(tensor) !== 'learnt';
  return {
    buffers: sum((tensor) => kindOf(tensor) === 'buffer'),
    values: sum(isValue),
    exact: sum((tensor) => isValue(tensor) || numelOf(tensor) <= SMALL),
    numel: sum(() => true),
  };
}

function blake64(bytes) {
  return blake.blake2bHex(bytes, undefined, 8);
}

// The keys of a layout are those of one object: they are sorted as they are.
function layoutDigest(layout) {
  const text = JSON.stringify({ tensors: layout.tensors });
  return blake64(Buffer.from(text.replace(/[\u007f-\uffff]/g, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'))));
}

function paramsDigest(flat) {
  const words = new Int32Array(flat.buffer, flat.byteOffset, flat.length);
  const bytes = crypto.createHash('shake128', { outputLength: 8 * TILE }).update('fedbus digest 1').digest();
  const keys = Array.from({ length: Math.min(TILE, words.length) }, (_, i) => bytes.readBigInt64LE(8 * i));
  const whole = Buffer.alloc(8 + 8 * Math.ceil(words.length / TILE));
  whole.writeBigUInt64LE(BigInt(words.length), 0);
  for (let tile = 0; tile * TILE < words.length; tile++) {
    let sum = 0n;
    for (let i = 0; i < TILE && tile * TILE + i < words.length; i++) sum += BigInt(words[tile * TILE + i]) * keys[i];
    whole.writeBigUInt64LE(BigInt.asUintN(64, sum), 8 + 8 * tile);
  }
  return blake64(whole);
}

// ---- reading

function header(frame) {
  if (frame.length < HEADER || frame.toString('latin1', 0, 2) !== 'FB' || frame[2] !== 1) throw new Error('no frame of schema 1');
  const code = CODES[frame[3]];
  const found = { code, start: Number(frame.readBigUInt64LE(4)), count: frame.readUInt32LE(12) };
  const sum = zlib.crc32(frame.subarray(HEADER), zlib.crc32(frame.subarray(0, 20)));
  if (!code || frame.readUInt32LE(16) !== frame.length - HEADER || frame.readUInt32LE(20) !== sum) throw new Error('damaged frame');
  return found;
}

function planeSizes(code, n, kept) {
  const scales = (count) => 4 * Math.ceil(count / BLOCK);
  return {
    fp32: [2 * n, n, n],
    fp16: [n, n, scales(n)],
    bf16: [n, n],
    int8: [n, scales(n)],
    int4: [Math.ceil(n / 2), scales(n)],
    topk: [kept, kept, kept, kept, scales(kept)],
  }[code];
}

function planesOf(frame, code, count) {
  let at = HEADER;
  let kept = count;
  if (code === 'topk') [kept, at] = [frame.readUInt32LE(at), at + 4];
  if (kept > count) throw new Error('more kept than there are');
  const sizes = planeSizes(code, count, kept);
  const stored = sizes.map((_, i) => frame.readUInt32LE(at + 4 * i));
  at += 4 * sizes.length;
  return sizes.map((size, i) => {
    const bytes = frame.subarray(at, (at += stored[i]));
    const plane = stored[i] === size ? bytes : Buffer.from(fzstd.decompress(bytes, new Uint8Array(size)));
    if (plane.length !== size) throw new Error('a plane of another length');
    return plane;
  });
}

function halfToNumber(bits) {
  const [sign, exponent, mantissa] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + mantissa / 1024) : 2 ** -14 * (mantissa / 1024));
}

function nibbleOf(packed, i, count) {
  const block = Math.floor(i / BLOCK);
  const within = i - block * BLOCK;
  const half = Math.ceil(Math.min(BLOCK, count - block * BLOCK) / 2);
  const byte = packed[block * (BLOCK / 2) + (within % half)];
  return within < half ? (byte << 28) >> 28 : (byte << 24) >> 28;
}

function elements(frame) {
  const { code, start, count } = header(frame);
  const planes = planesOf(frame, code, count);
  const values = new Float32Array(count);
  const bits = new Uint32Array(values.buffer);
  const last = planes[planes.length - 1];
  const scaled = (number, i) => Math.fround(number * last.readFloatLE(4 * Math.floor(i / BLOCK)));
  const each = {
    fp32: (i) => (bits[i] = planes[0].readUInt16LE(2 * i) | (planes[1][i] << 16) | (planes[2][i] << 24)),
    bf16: (i) => (bits[i] = (planes[0][i] << 16) | (planes[1][i] << 24)),
    fp16: (i) => (values[i] = scaled(halfToNumber(planes[0][i] | (planes[1][i] << 8)), i)),
    int8: (i) => (values[i] = scaled(planes[0].readInt8(i), i)),
    int4: (i) => (values[i] = scaled(nibbleOf(planes[0], i, count), i)),
  }[code];
  if (each) for (let i = 0; i < count; i++) each(i);
  let place = -1;
  for (let k = 0; code === 'topk' && k < planes[3].length; k++) {
    place += 1 + (planes[0][k] | (planes[1][k] << 8) | (planes[2][k] << 16));
    if (place >= count) throw new Error('a place outside the frame');
    values[place] = scaled(planes[3].readInt8(k), k);
  }
  return { start, values };
}

// Writes the frames of a snapshot to `flat`, or adds those of a delta; values are written in both cases.
function apply(flat, frames, layout, { add }) {
  const border = ends(layout).values;
  for (const frame of frames) {
    const { start, values } = elements(frame);
    if (start + values.length > flat.length) throw new Error('a frame outside the params');
    for (let i = 0; i < values.length; i++) flat[start + i] = values[i] + (add && start >= border ? flat[start + i] : 0);
  }
}

// ---- writing

function build(code, start, count, planes) {
  const lengths = Buffer.alloc(4 * planes.length);
  planes.forEach((plane, i) => lengths.writeUInt32LE(plane.length, 4 * i));
  const payload = Buffer.concat([lengths, ...planes]);
  const head = Buffer.alloc(HEADER);
  head.write('FB', 'latin1');
  head[2] = 1;
  head[3] = CODES.indexOf(code);
  head.writeBigUInt64LE(BigInt(start), 4);
  head.writeUInt32LE(count, 12);
  head.writeUInt32LE(payload.length, 16);
  head.writeUInt32LE(zlib.crc32(payload, zlib.crc32(head.subarray(0, 20))), 20);
  return Buffer.concat([head, payload]);
}

function fp32Planes(values) {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const low = Buffer.from(Uint16Array.from(bits, (word) => word & 0xffff).buffer);
  return [low, Buffer.from(Uint8Array.from(bits, (word) => word >> 16)), Buffer.from(Uint8Array.from(bits, (word) => word >>> 24))];
}

function int8Planes(values) {
  const steps = Buffer.alloc(values.length);
  const scales = Buffer.alloc(4 * Math.ceil(values.length / BLOCK));
  for (let first = 0; first < values.length; first += BLOCK) {
    const block = values.subarray(first, first + BLOCK);
    const most = block.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
    const scale = Math.fround(Math.max((most * (1 + 2 ** -22)) / 127, 2 ** -100));
    scales.writeFloatLE(scale, (4 * first) / BLOCK);
    block.forEach((x, i) => steps.writeInt8(Math.max(-127, Math.min(127, Math.round(x / scale + Math.random() - 0.5))), first + i));
  }
  return [steps, scales];
}

// The frames of a vector: values and small tensors exact, the rest as int8, or as fp32 where that is wished.
function encode(flat, layout, { code = 'fp32', chunkBytes = 1 << 20 } = {}) {
  const { buffers, values, exact, numel } = ends(layout);
  const step = Math.max(1, Math.floor(chunkBytes / 4 / BLOCK)) * BLOCK;
  const rest = code === 'int8' ? 'int8' : 'fp32';
  const groups = [[0, buffers, VALUE_FRAME, 'fp32'], [buffers, values, VALUE_FRAME, 'fp32'], [values, exact, step, 'fp32'], [exact, numel, step, rest]];
  const frames = [];
  for (const [first, stop, most, coded] of groups) {
    for (let start = first; start < stop; start += most) {
      const part = flat.subarray(start, Math.min(start + most, stop));
      frames.push(build(coded, start, part.length, coded === 'int8' ? int8Planes(part) : fp32Planes(part)));
    }
  }
  return frames;
}

module.exports = { apply, elements, encode, ends, header, layoutDigest, paramsDigest };
