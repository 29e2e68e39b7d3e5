int main() {
  httplib::Server svr;
  svr.listen("0.0.0.0", 9001);
}
