package server

import "github.com/gin-gonic/gin"

func Run() {
	r := gin.New()
	r.Run(":8086")
}
