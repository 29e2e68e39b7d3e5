package x
fun main() { val port = System.getenv("PORT")?.toInt() ?: 8082
 embeddedServer(Netty, port) { }.start(wait = true) }
