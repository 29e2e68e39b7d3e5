module x
require (
	github.com/gin-gonic/gin v1.9.0
	github.com/labstack/echo/v4 v4.12.0
)
