// A site of a fedbus federation that holds no line of fedbus: what it does stands in deploy/asyncapi.yaml.
//
//     FEDBUS_BROKER_URL=amqp://SITE:PASSWORD@127.0.0.1:5672/fedbus node site.js --data FOLDER [--once]
//
// It keeps nothing on its disk: started again it has a new incarnation, and what it had not sent is lost. When the link
// breaks it ends with exit code 1, for whoever runs it to start it again. --once: leave when a job has ended.
'use strict';
const { randomBytes, randomUUID } = require('crypto');
const amqp = require('amqplib');
const { Heart, LAYOUT } = require('./heart');
const { apply, encode, ends, layoutDigest, paramsDigest } = require('./frames');

const JSON_TYPE = 'application/json';
const FRAME_TYPE = 'application/vnd.fedbus.frame';
const STATUS_S = 2;
const DIGEST = layoutDigest(LAYOUT);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const log = (event, facts) => console.log(JSON.stringify({ event, ...facts }));

class Site {
  constructor(name, task, once) {
    Object.assign(this, { name, task, once, session: randomBytes(8).toString('hex'), incarnation: randomBytes(4).toString('hex') });
    this.jobs = new Map();
    this.sequence = 0;
    this.returned = new Set();
  }

  async open(connection) {
    this.connection = connection;
    this.out = await connection.createConfirmChannel();
    this.out.on('return', (message) => this.returned.add(message.properties.messageId));
    const control = await connection.createChannel();
    await control.prefetch(16);
    const queue = `fedbus.site.${this.name}`;
    for (let tries = 0; (await control.checkQueue(queue)).consumerCount > 0; tries++) {
      if (tries === 5) throw new Error(`another site consumes ${queue}: two of one name would share what is said to them`);
      await pause(1000); // one that was killed is gone by then
    }
    await control.consume(queue, (message) => {
      if (message === null) return process.exit(1);
      this.hear(message.properties.type, JSON.parse(message.content)).catch((error) => log('control-message', { error: String(error) }));
      control.ack(message);
    });
    await this.join();
    setInterval(() => this.status(), 1000 * STATUS_S);
  }

  // ---- speaking

  // Resolves when the broker has taken the message; one that it returns or refuses for now is sent again.
  async publish(exchange, key, type, body, { id = randomUUID(), headers = {}, ...properties } = {}) {
    const json = !Buffer.isBuffer(body);
    const options = {
      type, messageId: id, userId: this.name, persistent: true, mandatory: true, contentType: json ? JSON_TYPE : FRAME_TYPE,
      headers: { schema: 1, ...headers }, ...properties,
    };
    for (let wait = 200; ; wait = Math.min(2 * wait, 10000)) {
      this.returned.delete(id);
      const taken = await new Promise((done) => this.out.publish(exchange, key, json ? Buffer.from(JSON.stringify(body)) : body, options, (error) => done(!error)));
      if (taken && !this.returned.delete(id)) return;
      await pause(wait);
    }
  }

  say(kind, type, message, properties) {
    return this.publish('fedbus.sites', `${this.name}.${kind}`, type, { site: this.name, ...message }, properties);
  }

  join() {
    return this.say('join', 'join', { session: this.session, tasks: ['heart_disease'], fedbus_version: 'foreign-site 1', device: 'cpu' });
  }

  status() {
    const jobs = [...this.jobs.values()].map((job) => ({ job: job.id, activity: job.activity, version: job.version, step: 0, steps: 0 }));
    return this.say('status', 'status', { session: this.session, lease_s: 5 * STATUS_S, jobs, said_at: Date.now() / 1000 }, { expiration: '60000' });
  }

  answer(type, message) {
    return this.say('answer', type, message);
  }

  // ---- hearing

  async hear(type, message) {
    if (type === 'roll-call') return this.join();
    if (type === 'offer') return this.consider(message);
    const job = this.jobs.get(message.job);
    if (!job) return undefined;
    if (type === 'initial-params') job.initialAsked = true;
    if (type === 'statistics') await this.answer('statistics-answer', { job: job.id, asked: message.id, statistics: null, failed: '' });
    if (type === 'job-started') await this.started(job, message);
    if (type === 'receipt') this.receipt(job, message);
    if (type === 'step-budget') job.steps = Math.min(message.steps, job.spec.local.steps);
    if (type === 'resend' && job.waiting.has(message.update_id)) await this.send(job, message.update_id);
    if (type === 'score') job.scoreAsked = message.version;
    if (type === 'job-ended') await this.end(job, message);
    return job.wake();
  }

  async consider({ job: id, spec }) {
    const reason = refusal(spec);
    if (reason) return this.answer('offer-answer', { job: id, accepted: false, reason });
    await this.answer('offer-answer', { job: id, accepted: true, layout: DIGEST });
    if (this.jobs.has(id)) return undefined;
    const job = {
      id, spec, activity: 'waiting for the model', version: -1, flat: null, trainedFrom: -1, oldestBase: 0, shownFrom: 0, arriving: new Map(),
      waiting: new Map(), waker: () => {}, wake() { this.waker(); },
    };
    this.jobs.set(id, job);
    log('accepted', { job: id });
    return this.work(job);
  }

  async started(job, { session, log: stream, version = -1 }) {
    job.shownFrom = Math.max(job.shownFrom, version);
    if (job.aggregator !== undefined && job.aggregator !== session) for (const id of job.waiting.keys()) await this.send(job, id);
    if (job.aggregator === undefined) await this.follow(job, stream || `fedbus.models.${job.id}`);
    job.aggregator = session;
  }

  receipt(job, { update_id: id, outcome, reason, rebase }) {
    if (!job.waiting.delete(id)) return;
    log('receipt', { job: job.id, update: id, outcome, reason });
    if (rebase !== null && rebase !== undefined) job.oldestBase = rebase;
  }

  async end(job, { state, reason }) {
    log('job-ended', { job: job.id, state, reason });
    job.ended = true;
    this.jobs.delete(job.id);
    if (this.once) await this.leave();
  }

  async leave() {
    await this.say('leave', 'leave', { session: this.session, reason: 'stopped' });
    this.left = true;
    await this.connection.close();
  }

  // ---- the model log

  async follow(job, stream) {
    const channel = await this.connection.createChannel();
    await channel.prefetch(4);
    const { consumerTag } = await channel.consume(stream, (message) => {
      if (message === null || job.ended) return;
      try {
        this.record(job, message);
      } catch (error) {
        log('record', { job: job.id, error: String(error) });
      }
      channel.ack(message);
      job.wake();
    }, { arguments: { 'x-stream-offset': 'first' } });
    log('following', { job: job.id, stream, consumerTag });
  }

  record(job, { properties: { type, headers }, content }) {
    if (type === 'chunk') {
      const part = `${headers.transfer}/${headers.part}`;
      if (!job.arriving.has(part)) job.arriving.set(part, new Map());
      job.arriving.get(part).set(headers.index, content);
    }
    if (type === 'version') this.version(job, JSON.parse(content));
  }

  version(job, manifest) {
    const whole = (name) => {
      const [came, part] = [job.arriving.get(`${manifest.version}/${name}`), manifest[name]];
      return part && came && came.size === part.frames ? [...came].sort(([a], [b]) => a - b).map(([, frame]) => frame) : null;
    };
    const [delta, snapshot] = [whole('delta'), whole('snapshot')];
    for (const part of job.arriving.keys()) if (Number(part.split('/')[0]) <= manifest.version) job.arriving.delete(part);
    for (const receipt of manifest.receipts || []) this.receipt(job, receipt);
    if (manifest.version <= job.version) return;
    if (delta && job.flat && manifest.version === job.version + 1) apply(job.flat, delta, LAYOUT, { add: true });
    else if (snapshot) apply((job.flat = new Float32Array(ends(LAYOUT).numel)), snapshot, LAYOUT, { add: false });
    else job.flat = null;
    if (job.flat && paramsDigest(job.flat) === manifest.digest) {
      job.version = manifest.version;
      log('version-held', { job: job.id, version: job.version });
      return;
    }
    [job.flat, job.version] = [null, -1];
    if (manifest.version >= job.shownFrom) this.answer('resync', { job: job.id, reason: `version ${manifest.version} cannot be made here` });
  }

  // ---- working

  async work(job) {
    while (!job.ended) {
      const woken = new Promise((done) => (job.waker = done));
      const ready = job.flat !== null && job.version >= job.shownFrom;
      if (job.initialAsked) await this.initial(job);
      else if (ready && job.scoreAsked !== undefined && job.version >= job.scoreAsked) await this.score(job, true);
      else if (ready && job.scoreAsked === undefined && this.mayTrain(job)) await this.train(job);
      else {
        job.activity = job.flat === null ? 'waiting for the model' : job.waiting.size ? 'waiting for a receipt' : 'waiting for the next version';
        await woken;
      }
    }
  }

  mayTrain(job) {
    const fresh = job.spec.strategy.kind !== 'sync' || job.version > job.trainedFrom;
    return fresh && job.waiting.size === 0 && job.version >= job.oldestBase;
  }

  async initial(job) {
    job.activity = 'making initial params';
    job.initialAsked = false;
    await this.update(job, 'initial', 0, new Float32Array(ends(LAYOUT).numel), { num_examples: 0 }, LAYOUT);
  }

  async score(job, asked) {
    job.activity = 'scoring';
    if (asked) job.scoreAsked = Infinity; // answered; training is over
    await this.answer('score-answer', { job: job.id, version: job.version, asked, ...this.task.score(job.flat) });
  }

  async train(job) {
    const { local, codec } = job.spec;
    const [base, version, budget] = [Float32Array.from(job.flat), job.version, job.steps || local.steps];
    if (local.evaluate && version > job.trainedFrom) await this.score(job, false);
    job.activity = 'training';
    const enough = (steps, epochs, seconds) => steps > 0 && (budget ? steps >= budget : local.epochs ? epochs >= local.epochs : seconds >= local.seconds);
    const trained = await this.task.train(base, local, enough, () => job.ended || job.scoreAsked !== undefined || version < job.oldestBase);
    if (trained === null) return;
    job.trainedFrom = version;
    await this.update(job, 'delta', version, trained.flat.map((x, i) => x - base[i]), trained.effort, null, codec.up);
  }

  async update(job, kind, base, flat, effort, layout, code) {
    const id = `${this.name}:${this.incarnation}:${this.sequence++}`;
    const frames = encode(flat, LAYOUT, { code, chunkBytes: job.spec.chunk_bytes });
    const manifest = {
      job: job.id, update_id: id, kind, base_version: base, effort, layout_digest: DIGEST, frames: frames.length,
      body_bytes: frames.reduce((sum, frame) => sum + frame.length, 0), layout,
    };
    job.waiting.set(id, { manifest, frames });
    await this.send(job, id);
  }

  async send(job, id) {
    const { manifest, frames } = job.waiting.get(id);
    const key = `${job.id}.${this.name}`;
    await Promise.all(frames.map((frame, index) => {
      const headers = { job: job.id, transfer: id, part: 'update', index, count: frames.length };
      return this.publish('fedbus.updates', key, 'chunk', frame, { id: `${id}/${index}`, headers });
    }));
    await this.publish('fedbus.updates', key, 'update', manifest, { id });
    log('update-published', { job: job.id, update: id, base_version: manifest.base_version });
  }
}

function refusal(spec) {
  if (spec.task !== 'heart_disease' || (spec.kind || 'training') !== 'training') return 'this site trains the task heart_disease only';
  if (Object.keys(spec.task_config || {}).some((key) => key !== 'hidden' || spec.task_config[key] !== 0)) return 'this site has logistic regression only';
  const shared = [spec.keep, spec.travel, spec.frozen].some((list) => list && list.length > 0);
  return shared ? 'this site sends the whole model only' : '';
}

async function main(argv) {
  const folder = argv[argv.indexOf('--data') + 1];
  const url = process.env.FEDBUS_BROKER_URL;
  if (!url || !argv.includes('--data') || !folder) {
    console.error('set FEDBUS_BROKER_URL=amqp://SITE:PASSWORD@HOST:PORT/VHOST, and give --data FOLDER');
    process.exit(2);
  }
  const connection = await amqp.connect(url, { heartbeat: 30 });
  connection.on('error', (error) => log('connection', { error: error.message }));
  const site = new Site(decodeURIComponent(new URL(url).username), new Heart(folder), argv.includes('--once'));
  connection.on('close', () => process.exit(site.left ? 0 : 1));
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => site.leave());
  await site.open(connection);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
