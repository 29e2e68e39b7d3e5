"""Git's own HTTP server behind TLS, for tests/live/git_server.rs."""

import base64
import http.server
import os
import ssl
import subprocess


def known():
    """What somebody says who may read `private.git`."""
    try:
        word = open("/srv/token").read().strip()
    except FileNotFoundError:
        return None
    return "Basic " + base64.b64encode(f"x-access-token:{word}".encode()).decode()


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        path, _, query = self.path.partition("?")
        if path.startswith("/moved.git"):
            return self.plain(302, "Location", "/app.git" + self.path[len("/moved.git"):])
        word = known()
        is_known = word is not None and self.headers.get("Authorization") == word
        if path.startswith("/private.git") and not is_known:
            return self.plain(401, "WWW-Authenticate", 'Basic realm="git"')
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": "/srv/repositories",
            "GIT_HTTP_EXPORT_ALL": "1",
            # Whoever is known may push.
            "REMOTE_USER": "test",
            "REMOTE_ADDR": self.client_address[0],
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, stdout=subprocess.PIPE
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [line.split(": ", 1) for line in head.decode().split("\r\n") if line]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        self.send_response(int(status.split(" ")[0]))
        for name, value in headers:
            if name != "Status":
                self.send_header(name, value)
        # Without a length the end of the connection would be the end of the
        # answer, and Git's TLS takes that for a cut.
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def plain(self, status, name, value):
        self.send_response(status)
        self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = answer


server = http.server.ThreadingHTTPServer(("", 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/server.pem", "/srv/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
