#include <sys/socket.h>
int main() {
  struct sockaddr_in serv_addr = { .sin_family = AF_INET, .sin_port = htons(4221), };
  bind(fd, (struct sockaddr *)&serv_addr, sizeof(serv_addr));
  listen(fd, 5);
}
