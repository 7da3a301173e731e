// The task of this site: logistic regression on the findings of one hospital's patients, by gradient descent.
'use strict';
const fs = require('fs');
const path = require('path');

const NUMBERS = { age: [54, 9], trestbps: [132, 19], chol: [220, 60], thalach: [138, 26], oldpeak: [0.9, 1.1] };
const FLAGS = ['sex', 'fbs', 'exang'];
const CATEGORIES = { cp: [1, 2, 3, 4], restecg: [0, 1, 2] };
const WEIGHT_DECAY = 1e-3;
const LAYOUT = { tensors: [['bias', [1], 'float32'], ['weight', [1, 15], 'float32']] };

function numberOf(text, column) {
  const value = text.trim() === '' ? NaN : Number(text);
  return value === -9 || (value === 0 && (column === 'chol' || column === 'trestbps')) ? NaN : value;
}

function median(values) {
  const sorted = values.filter((x) => !Number.isNaN(x)).sort((a, b) => a - b);
  return sorted.length ? (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2 : NaN;
}

function readPatients(folder) {
  const [head, ...lines] = fs.readFileSync(path.join(folder, 'heart_disease.csv'), 'utf8').trim().split(/\r?\n/);
  const columns = head.split(',').map((name) => name.trim());
  const rows = lines.map((line) => Object.fromEntries(line.split(',').map((cell, i) => [columns[i], numberOf(cell, columns[i])])));
  const medians = Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, median(rows.map((row) => row[name]))]));
  return rows.map((row) => ({ label: row.num > 0 ? 1 : 0, features: Float32Array.from(featuresOf(row, medians)) }));
}

function featuresOf(row, medians) {
  const numbers = Object.entries(NUMBERS).map(([name, [reference, spread]]) => {
    const value = [row[name], medians[name], reference].find((x) => !Number.isNaN(x));
    return (value - reference) / spread;
  });
  const flags = FLAGS.map((name) => (Number.isNaN(row[name]) ? 0.5 : row[name]));
  return [...numbers, ...flags, ...Object.entries(CATEGORIES).flatMap(([name, codes]) => codes.map((code) => Number(row[name] === code)))];
}

const logit = (flat, { features }) => features.reduce((sum, x, i) => sum + x * flat[1 + i], flat[0]);
const lossOf = (z, label) => Math.max(z, 0) - z * label + Math.log1p(Math.exp(-Math.abs(z)));

class Heart {
  constructor(folder) {
    const patients = readPatients(folder);
    this.train_ = patients.filter((_, i) => i % 3 !== 2);
    this.test = patients.filter((_, i) => i % 3 === 2);
  }

  // Trains from `base` until `enough(steps, epochs, seconds)`; gives the params after it, and the effort. Nothing when it is cancelled.
  async train(base, local, enough, cancelled) {
    const flat = Float32Array.from(base);
    const began = Date.now();
    let [steps, loss] = [0, 0];
    while (!enough(steps, (steps * local.batch_size) / this.train_.length, (Date.now() - began) / 1000)) {
      const gradient = new Float64Array(flat.length);
      const batch = Math.min(local.batch_size, this.train_.length);
      loss = 0;
      for (let i = 0; i < batch; i++) {
        const patient = this.train_[Math.floor(Math.random() * this.train_.length)];
        const z = logit(flat, patient);
        const error = (1 / (1 + Math.exp(-z)) - patient.label) / batch;
        gradient[0] += error;
        patient.features.forEach((x, k) => (gradient[1 + k] += error * x));
        loss += lossOf(z, patient.label) / batch;
      }
      gradient.forEach((g, k) => (flat[k] -= local.learning_rate * (g + WEIGHT_DECAY * flat[k] + local.proximal_mu * (flat[k] - base[k]))));
      steps += 1;
      await new Promise(setImmediate); // messages are heard meanwhile
      if (cancelled()) return null;
    }
    return { flat, effort: { num_examples: this.train_.length, steps, seconds: (Date.now() - began) / 1000, metrics: { loss } } };
  }

  score(flat) {
    const logits = this.test.map((patient) => [logit(flat, patient), patient.label]);
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    const metrics = {
      accuracy: mean(logits.map(([z, label]) => Number(z > 0 === label > 0))),
      loss: mean(logits.map(([z, label]) => lossOf(z, label))),
    };
    const [ill, healthy] = [1, 0].map((wanted) => logits.filter(([, label]) => label === wanted).map(([z]) => z));
    if (ill.length && healthy.length) {
      metrics.auc = mean(ill.flatMap((a) => healthy.map((b) => (a > b ? 1 : a === b ? 0.5 : 0))));
    }
    return { metrics, num_examples: logits.length };
  }
}

module.exports = { Heart, LAYOUT };
