package main

import (
	"fmt"
	"net/http"
)

func main() {
	http.ListenAndServe(fmt.Sprintf(":%d", serverPort), nil)
}
