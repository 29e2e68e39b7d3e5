"""Stands in for the Messages API: HTTPS, streaming, tool use, no model.

A prompt carries what the "model" is to do as a JSON list after the word STEPS:,
each step the name of a tool and its input. Each answer asks for the next tool
until the results of all are in the conversation, and then says so. One step is
no tool: `wait` streams words until its seconds are over or the other side
hangs up.

Only the key of /srv/key is taken. Every request leaves a line in
/srv/requests.jsonl, without the key.
"""

import http.server
import json
import ssl
import threading
import time

LOCK = threading.Lock()


def texts(message):
    content = message["content"]
    if isinstance(content, str):
        return [content]
    return [block["text"] for block in content if block.get("type") == "text"]


def results(messages):
    """The results of tools that the conversation holds."""
    found = []
    for message in messages:
        if isinstance(message["content"], list):
            found += [b for b in message["content"] if b.get("type") == "tool_result"]
    return found


def steps_of(messages):
    for message in messages:
        if message["role"] != "user":
            continue
        for text in texts(message):
            if "STEPS:" in text:
                return json.JSONDecoder().raw_decode(text.split("STEPS:", 1)[1].strip())[0]
    return None


def answer(request):
    """The blocks of the next message, and why it ends."""
    steps = steps_of(request["messages"])
    if steps is None or not request.get("tools"):
        return [{"type": "text", "text": "ok"}], "end_turn"
    done = results(request["messages"])
    if len(done) < len(steps):
        step = steps[len(done)]
        if step["tool"] == "wait":
            return [{"type": "wait", "seconds": step["seconds"]}], "end_turn"
        say = {"type": "text", "text": "step %d: %s" % (len(done) + 1, step["tool"])}
        use = {"type": "tool_use", "id": "toolu_%024d" % len(done), "name": step["tool"],
               "input": step["input"]}
        return [say, use], "tool_use"
    failed = sum(1 for result in done if result.get("is_error"))
    return [{"type": "text", "text": "did %d steps, %d failed" % (len(done), failed)}], "end_turn"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def note(self, **facts):
        with LOCK, open("/srv/requests.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"method": self.command, "path": self.path, **facts}) + "\n")

    def send_json(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self):
        self.note()
        self.send_json(200, {})

    def do_GET(self):
        self.note()
        self.send_json(404, {"type": "error", "error": {"type": "not_found_error", "message": "none"}})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with open("/srv/key", encoding="utf-8") as file:
            key = file.read().strip()
        presented = self.headers.get("x-api-key") or (self.headers.get("authorization") or "")[7:]
        request = json.loads(body)
        self.note(
            known_key=presented == key,
            model=request.get("model"),
            messages=len(request.get("messages", [])),
            tools=len(request.get("tools", [])),
            stream=bool(request.get("stream")),
        )
        if presented != key:
            error = {"type": "authentication_error", "message": "invalid x-api-key"}
            return self.send_json(401, {"type": "error", "error": error})
        if self.path.split("?")[0].endswith("/count_tokens"):
            return self.send_json(200, {"input_tokens": 10})
        blocks, reason = answer(request)
        message = {
            "id": "msg_%032d" % time.monotonic_ns(), "type": "message", "role": "assistant",
            "model": request["model"], "content": [], "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": 10, "output_tokens": 1},
        }
        if request.get("stream"):
            return self.stream(message, blocks, reason)
        message.update(content=blocks, stop_reason=reason)
        return self.send_json(200, message)

    def stream(self, message, blocks, reason):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

        def event(kind, **fields):
            text = "event: %s\ndata: %s\n\n" % (kind, json.dumps({"type": kind, **fields}))
            data = text.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        def text_delta(index, text):
            event("content_block_delta", index=index, delta={"type": "text_delta", "text": text})

        event("message_start", message=message)
        for index, block in enumerate(blocks):
            if block["type"] == "tool_use":
                event("content_block_start", index=index, content_block={**block, "input": {}})
                event("content_block_delta", index=index, delta={
                    "type": "input_json_delta", "partial_json": json.dumps(block["input"])})
            else:
                event("content_block_start", index=index, content_block={"type": "text", "text": ""})
                if block["type"] == "wait":
                    end = time.monotonic() + block["seconds"]
                    while time.monotonic() < end:
                        text_delta(index, "waiting ")
                        time.sleep(0.2)
                else:
                    for word in block["text"].split(" "):
                        text_delta(index, word + " ")
            event("content_block_stop", index=index)
        event("message_delta", delta={"stop_reason": reason, "stop_sequence": None},
              usage={"output_tokens": 5})
        event("message_stop")
        self.wfile.write(b"0\r\n\r\n")


def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/srv/server.pem", "/srv/server.key")
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 443), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


main()
