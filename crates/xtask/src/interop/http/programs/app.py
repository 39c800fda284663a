"""An ASGI app for uvicorn: streams, server-sent events, a long poll, uploads, WebSockets."""

import asyncio
import hashlib
import json
from urllib.parse import parse_qs

seen = asyncio.Event()
acknowledged = 0
released = asyncio.Event()
closed = []


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await websocket(scope, receive, send)
    elif scope["type"] == "http":
        await request(scope, receive, send)
    elif scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return


async def request(scope, receive, send):
    global acknowledged
    path = scope["path"]
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    if path == "/stream":
        await stream(send, int(query["count"]), int(query["size"]))
    elif path == "/events":
        await events(send, int(query["count"]))
    elif path == "/ack":
        acknowledged = int(query["n"])
        seen.set()
        await say(send, {"acknowledged": acknowledged})
    elif path == "/poll":
        await released.wait()
        await say(send, {"polled": True})
    elif path == "/release":
        released.set()
        await say(send, {"released": True})
    elif path == "/upload":
        await upload(receive, send)
    elif path == "/closed":
        await say(send, closed)
    elif path == "/who":
        fields = {name.decode(): value.decode() for name, value in scope["headers"]}
        await say(send, {"client": scope["client"][0], "scheme": scope["scheme"], "fields": fields})
    else:
        await say(send, {"error": "no such path"}, 404)


async def say(send, value, status=200):
    body = json.dumps(value).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def stream(send, count, size):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for n in range(count):
        await send({"type": "http.response.body", "body": bytes([n % 251]) * size, "more_body": True})
        if n % 50 == 0:
            await asyncio.sleep(0.001)
    await send({"type": "http.response.body", "body": b""})


async def events(send, count):
    """Each event is sent when the one before was seen by the client."""
    global acknowledged
    acknowledged = 0
    fields = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    for n in range(1, count + 1):
        await send({"type": "http.response.body", "body": f"id: {n}\ndata: event {n}\n\n".encode(), "more_body": True})
        while acknowledged < n:
            seen.clear()
            await asyncio.wait_for(seen.wait(), 5)
    await send({"type": "http.response.body", "body": b""})


async def upload(receive, send):
    length, pieces, digest = 0, 0, hashlib.sha256()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body = message.get("body", b"")
        length += len(body)
        pieces += 1
        digest.update(body)
        if not message.get("more_body"):
            break
    await say(send, {"length": length, "pieces": pieces, "sha256": digest.hexdigest()})


async def websocket(scope, receive, send):
    await receive()
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": "kakei.test" if "kakei.test" in offered else None})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            closed.append(f"{message['code']} {message.get('reason') or ''}")
            return
        text = message.get("text")
        if text is not None and text.startswith("close:"):
            await send({"type": "websocket.close", "code": int(text[6:]), "reason": "as you wish"})
        elif text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
