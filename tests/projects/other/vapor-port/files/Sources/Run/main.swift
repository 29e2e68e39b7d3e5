import App
import Vapor
let app = Application(env)
try app.run()
