module x
require github.com/gofiber/fiber/v2 v2.52.0
