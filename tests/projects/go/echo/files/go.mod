module x

go 1.23.1

toolchain go1.23.4

require (
	github.com/labstack/echo/v4 v4.12.0
)
