"""A WebSocket client by `websockets`. python client.py ws://HOST/ws; says how many messages it had back."""

import json
import sys
import time
import urllib.request

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

URL = sys.argv[1]
echoes = 0


def open_it():
    return connect(URL, subprotocols=["other", "kakei.test"], max_size=1 << 24, proxy=None, close_timeout=5)


def echo(socket, data):
    global echoes
    socket.send(data)
    back = socket.recv(timeout=10)
    whole = data if isinstance(data, (str, bytes)) else type(data[0])().join(data)
    assert back == whole, f"{len(whole)} came back as {len(back)}"
    echoes += 1


def end_of(socket):
    try:
        while True:
            socket.recv(timeout=10)
    except ConnectionClosed as end:
        return f"{end.rcvd.code} {end.rcvd.reason}"


with open_it() as socket:
    assert socket.subprotocol == "kakei.test", socket.subprotocol
    for data in ["hello", "\U0001f642 \u00fc\u4e16\u754c", "", b"\x00\x01\xff", b"", "x" * (1 << 20)]:
        echo(socket, data)
    echo(socket, bytes(at * at % 251 for at in range(1 << 20)))
    for size in [125, 126, 127, 65535, 65536]:
        echo(socket, b"\x07" * size)
    echo(socket, ["in ", "three ", "pieces"])
    echo(socket, [b"\x01" * 70000, b"\x02" * 3])
    assert socket.ping("payload").wait(10), "no pong"
    for n in range(500):
        socket.send(f"message {n}")
    for n in range(500):
        assert socket.recv(timeout=10) == f"message {n}"
    echoes += 500
    # Long enough for pings of the server.
    time.sleep(0.4)
    echo(socket, "still there")
    socket.close(4002, "goodbye")
with open_it() as socket:
    socket.send("close:4001")
    assert end_of(socket) == "4001 as you wish"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
until, closed = time.time() + 5, []
while "4002 goodbye" not in closed and time.time() < until:
    closed = json.load(opener.open(URL.replace("ws:", "http:").replace("/ws", "/closed"), timeout=5))
assert "4002 goodbye" in closed, f"the server was told {closed}"
print(echoes)
