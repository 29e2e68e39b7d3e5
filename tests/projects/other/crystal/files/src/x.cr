require "kemal"
get "/" { "x" }
Kemal.run
