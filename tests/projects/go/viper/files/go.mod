module github.com/me/svc
go 1.22
require (
	github.com/labstack/echo/v4 v4.11.4
	github.com/spf13/viper v1.18.2
)
