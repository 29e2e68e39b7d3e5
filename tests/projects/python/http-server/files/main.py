from http.server import HTTPServer, SimpleHTTPRequestHandler

PORT = 8123
HTTPServer(("", PORT), SimpleHTTPRequestHandler).serve_forever()
