"""A service for the stack's tests: answers /ready, /pid and /environment on the port that OCTO_FAKE__PORT names.

Words on its command line make it misbehave: ``ignore-term`` ignores SIGTERM, ``grandchild`` starts a process in a
session of its own, ``die-after=<seconds>`` ends by itself once it was found ready, ``die-at-once`` before that,
``not-ready`` answers 503.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = set(sys.argv[1:])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = 503 if "not-ready" in WORDS else 200
        answers = {"/ready": "{}", "/pid": str(os.getpid()), "/environment": json.dumps(dict(os.environ))}
        body = answers.get(self.path, "").encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)
        for word in WORDS:
            if self.path == "/ready" and word.startswith("die-after="):
                threading.Timer(float(word.partition("=")[2]), lambda: os._exit(3)).start()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        print(self.requestline, code)


if "die-at-once" in WORDS:
    sys.exit("fake: this setting is wrong")
if "ignore-term" in WORDS:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "grandchild" in WORDS:
    left = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print(f"grandchild {left.pid}")
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["OCTO_FAKE__PORT"])), Handler)
print("fake: serving")
server.serve_forever()
