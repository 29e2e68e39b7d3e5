package server
import "github.com/labstack/echo/v4"
func (s *Server) Start() { s.e.Logger.Fatal(s.e.Start(":" + s.cfg.Port)) }
