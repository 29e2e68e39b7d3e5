package main
import "github.com/me/svc/internal/server"
func main() { server.New(config.Load()).Start() }
