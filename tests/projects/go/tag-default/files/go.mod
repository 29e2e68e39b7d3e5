module e
require github.com/labstack/echo/v4 v4.11.0
