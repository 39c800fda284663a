"""A WebSocket, a long poll and an upload that go on until the file `stop` is there. python live.py PORT"""

import hashlib
import http.client
import json
import os
import socket
import sys
import threading
import time

from websockets.sync.client import connect

PORT = int(sys.argv[1])
HOST = {"Host": "kept.example"}
counts = {}
wrong = []


def until_stopped():
    while not os.path.exists("stop"):
        yield


def guarded(what):
    def run():
        try:
            what()
        except BaseException as error:
            wrong.append(f"{what.__name__}: {error!r}")
    return run


def talk():
    with connect("ws://kept.example/ws", sock=socket.create_connection(("127.0.0.1", PORT)), proxy=None) as talker:
        turns = 0
        for _ in until_stopped():
            talker.send(f"turn {turns}")
            assert talker.recv(timeout=10) == f"turn {turns}"
            turns += 1
            counts["turns"] = turns
            time.sleep(0.002)


def poll():
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    connection.request("GET", "/poll", headers=HOST)
    counts["polling"] = 1
    answer = connection.getresponse()
    assert answer.status == 200 and json.load(answer)["polled"], answer.status
    counts["polled"] = 1
    assert os.path.exists("stop"), "the long poll ended before it was released"


def upload():
    digest, sent = hashlib.sha256(), 0

    def pieces():
        nonlocal sent
        for _ in until_stopped():
            piece = bytes([sent % 251]) * 10007
            digest.update(piece)
            sent += len(piece)
            counts["uploaded"] = sent
            yield piece
            time.sleep(0.002)

    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    connection.request("POST", "/upload", body=pieces(), headers=HOST)
    answer = connection.getresponse()
    said = json.load(answer)
    assert answer.status == 200 and said["length"] == sent and said["sha256"] == digest.hexdigest(), said


threads = [threading.Thread(target=guarded(what)) for what in (talk, poll, upload)]
for thread in threads:
    thread.start()
while not wrong and not {"turns", "polling", "uploaded"} <= counts.keys():
    time.sleep(0.01)
open("ready", "w").close()
for thread in threads:
    thread.join()
print(json.dumps({"counts": counts, "wrong": wrong}))
sys.exit(1 if wrong else 0)
