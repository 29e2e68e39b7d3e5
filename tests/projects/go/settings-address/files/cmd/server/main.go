package main
import "flag"
func main() { flag.StringVar(&flagconf, "conf", "../../configs", "config path") }
