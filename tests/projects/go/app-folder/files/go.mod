module x
require github.com/gofiber/fiber/v3 v3.0.0
