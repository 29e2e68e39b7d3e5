libraryDependencies += "com.typesafe.akka" %% "akka-http" % "10.5.0"
