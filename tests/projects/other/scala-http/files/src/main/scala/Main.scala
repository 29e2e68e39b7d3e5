object Main extends App {
  Http().newServerAt("0.0.0.0", 8089).bind(route)
}
