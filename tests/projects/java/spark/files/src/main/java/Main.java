import static spark.Spark.*;
public class Main { public static void main(String[] a) { get("/", (q, r) -> "x"); } }
