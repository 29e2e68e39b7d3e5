package server
import "github.com/go-kratos/kratos/v2/transport/http"
func NewHTTPServer(c *conf.Server) *http.Server { return http.NewServer(http.Address(c.Http.Addr)) }
