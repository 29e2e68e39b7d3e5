open Suave
startWebServer defaultConfig (Successful.OK "Hello")
