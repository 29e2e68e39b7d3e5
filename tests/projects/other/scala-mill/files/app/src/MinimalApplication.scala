package app
object MinimalApplication extends cask.MainRoutes {
  @cask.get("/") def hello() = "Hello World!"
  initialize()
}
