package main

import "x/internal/server"

func main() { server.Run() }
