package main
import "net/http"
const host = "127.0.0.1"
func main() { http.ListenAndServe(host+":8080", nil) }
