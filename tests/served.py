"""A service on a free port, and a client for it."""

import http.client
import json
import threading
import time

from midsentence.web import server as serving


class Client:
    def __init__(self, port):
        self.port = port

    def ask(self, method, path, body=None, headers=None):
        """(status, JSON or text, headers)"""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json"} | (headers or {})
        link.request(method, path, content, sent)
        answer = link.getresponse()
        text = answer.read().decode()
        link.close()
        kind = answer.getheader("content-type", "")
        return answer.status, json.loads(text) if "json" in kind else text, answer

    def raw(self, path):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        link.request("GET", path)
        content = link.getresponse().read()
        link.close()
        return content

    def post(self, path, **body):
        return self.ask("POST", path, body)[:2]

    def get(self, path):
        return self.ask("GET", path)[:2]


def started(app):
    bound = serving.listening("127.0.0.1", 0)
    server = serving.server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    return server, thread, Client(bound.getsockname()[1])


def until(true, seconds=10.0):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
