import falcon
class R: pass
app = falcon.App()
