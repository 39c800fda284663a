// An express app as people write them, and a WebSocket server beside it. node server.js PORT
'use strict';
const { createHash } = require('crypto');
const http = require('http');
const express = require('express');
const multer = require('multer');
const { WebSocketServer } = require('ws');

const app = express();
app.set('trust proxy', 'loopback');
app.get('/hello', (request, response) => {
  response.cookie('first', 'a b', { httpOnly: true });
  response.cookie('second', '2', { path: '/x', sameSite: 'lax' });
  response.json({ ip: request.ip, host: request.hostname, protocol: request.protocol });
});
app.get('/cookies', (request, response) => response.json({ cookie: request.headers.cookie || '' }));
app.get('/stream/:count', (request, response) => {
  const count = Number(request.params.count);
  let sent = 0;
  const timer = setInterval(() => {
    response.write(`line ${sent++}\n`);
    if (sent === count) {
      clearInterval(timer);
      response.end();
    }
  }, 2);
});
app.get('/page', (request, response) => response.send('a page with an ETag of its own '.repeat(100)));
app.post('/json', express.json({ limit: '4mb' }), (request, response) => response.status(201).json(request.body));
app.post('/upload', multer({ storage: multer.memoryStorage() }).array('file'), (request, response) => {
  const files = request.files.map(file => ({
    name: file.originalname,
    size: file.size,
    sha256: createHash('sha256').update(file.buffer).digest('hex'),
  }));
  response.json({ note: request.body.note, files });
});
app.use('/files', express.static('files'));
const closed = [];
app.get('/closed', (request, response) => response.json(closed));
app.get('/fails', () => { throw new Error('on purpose'); });
app.use((error, request, response, next) => response.status(500).json({ error: error.message }));

const server = http.createServer(app);
const sockets = new WebSocketServer({
  server,
  path: '/ws',
  perMessageDeflate: true,
  handleProtocols: protocols => (protocols.has('kakei.test') ? 'kakei.test' : false),
});
sockets.on('connection', socket => {
  const beat = setInterval(() => socket.ping('are you there'), 100);
  let pongs = 0;
  socket.on('pong', data => { pongs += String(data) === 'are you there' ? 1 : 0; });
  socket.on('message', (data, isBinary) => {
    const text = isBinary ? '' : String(data);
    if (text.startsWith('close:')) socket.close(Number(text.slice(6)), 'as you wish');
    else if (text === 'pongs') socket.send(String(pongs));
    else socket.send(data, { binary: isBinary });
  });
  socket.on('close', (code, reason) => {
    clearInterval(beat);
    closed.push(`${code} ${reason}`);
  });
});
server.listen(Number(process.argv[2]), '127.0.0.1');
