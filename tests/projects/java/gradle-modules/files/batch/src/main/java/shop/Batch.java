package shop;
class Batch { public static void main(String[] a){} }
