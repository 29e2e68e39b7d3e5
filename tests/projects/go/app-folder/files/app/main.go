package main

import "github.com/gofiber/fiber/v3"

func main() { fiber.New().Listen(addr()) }
