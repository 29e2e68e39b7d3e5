import com.sun.net.httpserver.HttpServer;
public class Main { public static void main(String[] a) throws Exception {
  HttpServer server = HttpServer.create(new InetSocketAddress(8000), 0); server.start(); } }
