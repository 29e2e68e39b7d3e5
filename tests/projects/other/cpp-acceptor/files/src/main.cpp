#include "server.h"
int main() { unsigned short port = 8080; run_server("0.0.0.0", port); }
