module x

go 1.22

require github.com/gin-gonic/gin v1.10.0

require (
	github.com/labstack/echo/v4 v4.0.0 // indirect
)
