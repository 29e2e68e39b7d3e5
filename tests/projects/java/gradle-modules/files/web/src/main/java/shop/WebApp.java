package shop;
@SpringBootApplication public class WebApp { public static void main(String[] a){} }
