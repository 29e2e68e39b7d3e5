import config
import websockets

websockets.serve(handler, "", config.load()["where"])
