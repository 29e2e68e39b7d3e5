package main
import "github.com/labstack/echo/v4"
type Config struct {
	Port string `envconfig:"PORT" default:"8088"`
}
func main() { e := echo.New(); e.Logger.Fatal(e.Start(":" + cfg.Port)) }
