plugins { application
 kotlin("jvm") version "1.9" }
application { mainClass.set("x.MainKt") }
dependencies { implementation("io.ktor:ktor-server-netty:2.3.0") }
