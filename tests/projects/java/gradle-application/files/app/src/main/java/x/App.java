public class App { public static void main(String[] a) { HttpServer.create(new InetSocketAddress(7000), 0); } }
