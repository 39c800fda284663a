// A WebSocket client by `ws`. node client.js ws://HOST/ws; says how many messages it had back.
'use strict';
const assert = require('assert');
const http = require('http');
const WebSocket = require('ws');

const url = process.argv[2];
let echoes = 0;

function open() {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, ['other', 'kakei.test'], { maxPayload: 1 << 24 });
    socket.inbox = [];
    socket.waiting = [];
    socket.on('message', (data, isBinary) => {
      const message = { data, isBinary };
      const next = socket.waiting.shift();
      if (next) next(message);
      else socket.inbox.push(message);
    });
    socket.ended = new Promise(end => socket.on('close', (code, reason) => end(`${code} ${reason}`)));
    socket.on('open', () => resolve(socket));
    socket.on('error', reject);
  });
}

const next = socket =>
  socket.inbox.length ? socket.inbox.shift() : new Promise(resolve => socket.waiting.push(resolve));

async function echo(socket, data) {
  socket.send(data);
  const back = await next(socket);
  assert.strictEqual(back.isBinary, typeof data !== 'string');
  assert(Buffer.from(data).equals(back.data), `${data.length} bytes came back changed`);
  echoes++;
}

const get = path =>
  new Promise((resolve, reject) => {
    http.get(new URL(path, url.replace('ws:', 'http:')), response => {
      let text = '';
      response.on('data', piece => { text += piece; });
      response.on('end', () => resolve(JSON.parse(text)));
    }).on('error', reject);
  });

async function main() {
  const socket = await open();
  assert.strictEqual(socket.protocol, 'kakei.test');
  await echo(socket, 'hello');
  await echo(socket, '\u{1f642} \u00fc\u4e16\u754c');
  await echo(socket, '');
  await echo(socket, Buffer.from([0, 1, 2, 255]));
  await echo(socket, Buffer.alloc(0));
  await echo(socket, 'x'.repeat(1 << 20));
  await echo(socket, Buffer.from(Array.from({ length: 1 << 20 }, (_, at) => (at * at) % 251)));
  for (const size of [125, 126, 127, 65535, 65536]) await echo(socket, Buffer.alloc(size, 7));
  socket.send('in ', { fin: false });
  socket.send('three ', { fin: false });
  socket.send('pieces', { fin: true });
  assert.strictEqual(String((await next(socket)).data), 'in three pieces');
  echoes++;
  const pong = new Promise(resolve => socket.once('pong', resolve));
  socket.ping('payload');
  assert.strictEqual(String(await pong), 'payload');
  for (let n = 0; n < 500; n++) socket.send(`message ${n}`);
  for (let n = 0; n < 500; n++) assert.strictEqual(String((await next(socket)).data), `message ${n}`);
  echoes += 500;
  socket.close(4002, 'goodbye');
  assert.strictEqual(await socket.ended, '4002 goodbye');
  const other = await open();
  other.send('close:4001');
  assert.strictEqual(await other.ended, '4001 as you wish');
  const until = Date.now() + 5000;
  let closed = [];
  while (!closed.includes('4002 goodbye') && Date.now() < until) closed = await get('/closed');
  assert(closed.includes('4002 goodbye'), `the server was told ${closed}`);
  console.log(echoes);
}

main().then(() => process.exit(0), error => { console.error(error); process.exit(1); });
